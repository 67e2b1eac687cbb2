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
  /** May be `CACHED_MS` old. */
  find(name: string): Promise<ProducerGroup | undefined>;
  /** Idempotent. Rejects with `CHECK_URL_NOT_ALLOWED`. */
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
  checkPolicy: group.checkPolicy,
});

export function createProducerGroups({
  store,
  checkUrlProblem,
  newSigningSecret,
}: ProducerGroupsDeps): ProducerGroups {
  const cache = new Map<string, { group: ProducerGroup; readAt: number }>();

  async function find(name: string): Promise<ProducerGroup | undefined> {
    const cached = cache.get(name);
    if (cached !== undefined && performance.now() - cached.readAt < CACHED_MS) return cached.group;
    const group = await store.findGroup(name);
    if (group === undefined) return undefined;
    if (cache.size >= CACHED_GROUPS_MAX) cache.clear();
    cache.set(name, { group, readAt: performance.now() });
    return group;
  }

  return {
    find,
    async register(name, request) {
      for (const url of request.checkUrls) {
        const problem = checkUrlProblem(url);
        if (problem !== undefined) {
          throw new EscrowError('CHECK_URL_NOT_ALLOWED', `${url}: ${problem}`);
        }
      }
      const created = (await store.findGroup(name)) === undefined;
      const newSecret = newSigningSecret();
      const { group, secretMade } = await store.saveGroup({
        name,
        checkUrls: request.checkUrls,
        checkPolicy: request.checkPolicy,
        newSecret,
        rotate: request.rotateSecret,
      });
      cache.delete(name);
      return {
        created: created && secretMade,
        answer: { ...answerOf(group), ...(secretMade ? { signingSecret: newSecret } : {}) },
      };
    },
    async describe(name) {
      const group = await store.findGroup(name);
      return group === undefined ? undefined : answerOf(group);
    },
  };
}
