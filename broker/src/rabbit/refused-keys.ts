import type { RefusedKey } from './blame.js';

/**
 * Asking again costs a channel with nothing else on it; somebody who repairs the permissions waits
 * this long.
 */
const REFUSED_FOR_MS = 5_000;

/** After a refusal other keys of the topic may be refused too, each at the cost of the channel. */
const CAREFUL_FOR_MS = 10 * 60_000;

/** Bounds the memory; what is forgotten is tried again. */
const KEYS_PER_TOPIC_MAX = 10_000;

interface Careful {
  untilMs: number;
  /** RabbitMQ has taken messages with these keys since the topic is handled with care. */
  permitted: Set<string>;
  /** In order of expiry, since all are refused for the same time. */
  refused: Map<string, { detail: string; untilMs: number }>;
}

/**
 * What topic permissions have refused, on one connection. A refused key is not published for a few
 * seconds. The other keys of its topic go each alone until RabbitMQ has taken one of them, so that
 * permissions that refuse many keys do not close the common channel once for each.
 *
 * Times are those of `performance.now()`.
 */
export class RefusedKeys {
  readonly #topics = new Map<string, Careful>();

  /** Why a message of that key need not be tried now. */
  detailOf({ topic, routingKey }: RefusedKey, nowMs: number): string | undefined {
    const refused = this.#topics.get(topic)?.refused.get(routingKey);
    return refused !== undefined && refused.untilMs > nowMs ? refused.detail : undefined;
  }

  mustGoAlone({ topic, routingKey }: RefusedKey, nowMs: number): boolean {
    const careful = this.#topics.get(topic);
    if (careful === undefined) return false;
    if (careful.untilMs <= nowMs) {
      this.#topics.delete(topic);
      return false;
    }
    return !careful.permitted.has(routingKey);
  }

  refuse({ topic, routingKey }: RefusedKey, detail: string, nowMs: number): void {
    const careful = this.#topics.get(topic) ?? {
      untilMs: 0,
      permitted: new Set(),
      refused: new Map(),
    };
    careful.untilMs = nowMs + CAREFUL_FOR_MS;
    careful.permitted.delete(routingKey);
    careful.refused.delete(routingKey);
    for (const [expired, { untilMs }] of careful.refused) {
      if (untilMs > nowMs && careful.refused.size < KEYS_PER_TOPIC_MAX) break;
      careful.refused.delete(expired);
    }
    careful.refused.set(routingKey, { detail, untilMs: nowMs + REFUSED_FOR_MS });
    this.#topics.set(topic, careful);
  }

  /** RabbitMQ has taken a message of that key. */
  permit({ topic, routingKey }: RefusedKey): void {
    if (this.#topics.size === 0) return;
    const permitted = this.#topics.get(topic)?.permitted;
    if (permitted === undefined) return;
    if (permitted.size >= KEYS_PER_TOPIC_MAX) permitted.clear();
    permitted.add(routingKey);
  }
}
