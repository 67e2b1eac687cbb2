import {
  EscrowError,
  type ProducerGroupAnswer,
  type ProducerGroupRequest,
} from '@escrowmq/protocol';
import type { ProducerGroup, Store } from '../domain/ports.js';

export interface ProducerGroupsDeps {
  store: Pick<Store, 'findGroup' | 'saveGroup'>;
  /** What is wrong with calling this URL, or `undefined`. */
  checkUrlProblem(url: string): string | undefined;
  newSigningSecret(): string;
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

export function createProducerGroups({
  store,
  checkUrlProblem,
  newSigningSecret,
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

  return {
    cached,
    find: async (name) => cached(name) ?? readings.get(name) ?? read(name),
    async register(name, request) {
      for (const url of [...request.checkUrls, ...request.compensationUrls]) {
        const problem = checkUrlProblem(url);
        if (problem !== undefined) {
          throw new EscrowError('CHECK_URL_NOT_ALLOWED', `${url}: ${problem}`);
        }
      }
      const created = (await store.findGroup(name)) === undefined;
      const newSecret = newSigningSecret();
      const { group, secretMade, applied } = await store.saveGroup({
        name,
        checkUrls: request.checkUrls,
        compensationUrls: request.compensationUrls,
        checkPolicy: request.checkPolicy,
        version: request.version,
        newSecret,
        rotate: request.rotateSecret,
      });
      cache.delete(name);
      readings.delete(name);
      return {
        created: created && secretMade,
        answer: {
          ...answerOf(group),
          applied,
          ...(secretMade ? { signingSecret: newSecret } : {}),
        },
      };
    },
    async describe(name) {
      const group = await store.findGroup(name);
      return group === undefined ? undefined : answerOf(group);
    },
  };
}
