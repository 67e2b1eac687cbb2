import {
  EscrowError,
  type ProducerGroupAnswer,
  type ProducerGroupRequest,
} from '@escrowmq/protocol';
import type { Observer, ProducerGroup, Store } from '../domain/ports.js';
import { statedIn } from '../domain/signing-secrets.js';

export interface ProducerGroupsDeps {
  store: Pick<Store, 'findGroup' | 'saveGroup'>;
  /** What is wrong with calling this URL, or `undefined`. */
  checkUrlProblem(url: string): string | undefined;
  newSigningSecret(): string;
  observer: Pick<Observer, 'warn'>;
}

export interface ProducerGroups {
  /** What was read in the last `CACHED_MS`; undefined when that is nothing. */
  cached(name: string): ProducerGroup | undefined;
  /** As `cached`, or else from the store. */
  find(name: string): Promise<ProducerGroup | undefined>;
  /**
   * Idempotent. Settings of a lower version than the stored one change nothing, and the answer shows
   * what is stored. Rejects with `CHECK_URL_NOT_ALLOWED`.
   */
  register(
    name: string,
    request: ProducerGroupRequest,
    by?: string,
  ): Promise<{ created: boolean; answer: ProducerGroupAnswer }>;
  describe(name: string): Promise<ProducerGroupAnswer | undefined>;
}

/** Every prepare asks for its group; another instance's change is seen this much later. */
const CACHED_MS = 2_000;
const CACHED_GROUPS_MAX = 10_000;

const answerOf = (group: ProducerGroup): ProducerGroupAnswer => ({
  producerGroup: group.name,
  checkUrls: group.checkUrls,
  compensationUrls: group.compensationUrls,
  checkPolicy: group.checkPolicy,
  version: group.version,
});

type Replaced = NonNullable<ProducerGroupAnswer['replaced']>;

const hasAll = (urls: readonly string[], wanted: readonly string[]) =>
  wanted.every((url) => urls.includes(url));

/**
 * What was there before; absent when all of it still is. An instance that adds its own endpoint takes
 * nothing from the others.
 */
function replacedBy(now: ProducerGroup, before: ProducerGroup): Replaced | undefined {
  const signingSecret = now.signingSecrets[0] !== before.signingSecrets[0];
  const { checkUrls, compensationUrls } = before;
  const stay = hasAll(now.checkUrls, checkUrls) && hasAll(now.compensationUrls, compensationUrls);
  return stay && !signingSecret ? undefined : { checkUrls, compensationUrls, signingSecret };
}

export function createProducerGroups({
  store,
  checkUrlProblem,
  newSigningSecret,
  observer,
}: ProducerGroupsDeps): ProducerGroups {
  const cache = new Map<string, { group: ProducerGroup; readAt: number }>();

  /** Who asks while a group is being read waits for that reading: they come by the hundred. */
  const readings = new Map<string, Promise<ProducerGroup | undefined>>();

  function cached(name: string): ProducerGroup | undefined {
    const known = cache.get(name);
    if (known === undefined || performance.now() - known.readAt >= CACHED_MS) return undefined;
    return known.group;
  }

  async function read(name: string): Promise<ProducerGroup | undefined> {
    const readAt = performance.now();
    const reading = store.findGroup(name);
    readings.set(name, reading);
    // Another has taken its place when the group was saved meanwhile: what it found may be old.
    const counts = () => readings.get(name) === reading;
    try {
      const group = await reading;
      if (group !== undefined && counts()) {
        if (cache.size >= CACHED_GROUPS_MAX) cache.clear();
        cache.set(name, { group, readAt });
      }
      return group;
    } finally {
      if (counts()) readings.delete(name);
    }
  }

  /** Two services that register one group undo each other's words; whoever reads this sees both. */
  function tell(group: ProducerGroup, replaced: Replaced, by = 'a caller without a key'): void {
    const list = (urls: readonly string[]) => (urls.length === 0 ? 'none' : urls.join(' '));
    const changes = [
      `check URLs ${list(replaced.checkUrls)} → ${list(group.checkUrls)}`,
      `compensation URLs ${list(replaced.compensationUrls)} → ${list(group.compensationUrls)}`,
      ...(replaced.signingSecret ? ['another signing secret; the one before signs for a day'] : []),
    ];
    const facts = { producerGroup: group.name, apiKeyName: by, detail: changes.join('; ') };
    observer.warn('a producer group was registered otherwise than before', facts, group.name);
  }

  return {
    cached,
    find: async (name) => cached(name) ?? readings.get(name) ?? read(name),
    async register(name, request, by) {
      for (const url of [...request.checkUrls, ...request.compensationUrls]) {
        const problem = checkUrlProblem(url);
        if (problem !== undefined) {
          throw new EscrowError('CHECK_URL_NOT_ALLOWED', `${url}: ${problem}`);
        }
      }
      const before = await store.findGroup(name);
      const newSecret = request.newSecret ?? newSigningSecret();
      const stated = statedIn(request);
      const { group, secretMade, applied } = await store.saveGroup({
        name,
        checkUrls: request.checkUrls,
        compensationUrls: request.compensationUrls,
        checkPolicy: request.checkPolicy,
        version: request.version,
        newSecret,
        rotate: request.rotateSecret,
        signingSecrets: stated,
      });
      cache.delete(name);
      readings.delete(name);
      const replaced = applied && before !== undefined ? replacedBy(group, before) : undefined;
      if (replaced !== undefined) tell(group, replaced, by);
      return {
        created: before === undefined && (secretMade || stated !== undefined),
        answer: {
          ...answerOf(group),
          applied,
          ...(secretMade ? { signingSecret: newSecret } : {}),
          ...(replaced === undefined ? {} : { replaced }),
        },
      };
    },
    async describe(name) {
      const group = await store.findGroup(name);
      return group === undefined ? undefined : answerOf(group);
    },
  };
}
