import type { Observer, PublishOutcome } from '../domain/ports.js';
import type { ToForward } from './forward-round.js';

/*
 * What is wrong with a topic, told when it begins and not when the first message is parked for it, an
 * hour later. The observer bounds the lines: the first at once, then one a minute with a count.
 */

/** Attempts after which nacks of a topic are an alert: 15 s, longer than the election of a queue's leader. */
const NACKED_ATTEMPTS_ALERTED = 5;

/** One alert for a topic in this time, however many messages it holds up. */
const ALERT_EVERY_MS = 3_600_000;

/** Bounds the memory; topics are few. */
const TOPICS_MAX = 1_000;

const SAID: Partial<Record<PublishOutcome['kind'], string>> = {
  returned: 'no queue is bound for messages of a topic, which are tried again',
  nacked: 'RabbitMQ nacks messages of a topic, which are tried again',
  refused: 'RabbitMQ refuses messages of a topic, which are tried again',
};

export interface TopicTrouble {
  /** One message that was not confirmed. */
  saw(
    transaction: Pick<ToForward, 'id' | 'producerGroup' | 'attempts'>,
    message: { topic: string; ifUnrouted: 'retry' | 'drop' },
    outcome: PublishOutcome,
  ): void;
}

/** @param now monotonic milliseconds */
export function createTopicTrouble(
  observer: Pick<Observer, 'alert' | 'warn'>,
  now: () => number = () => performance.now(),
): TopicTrouble {
  /** In order of the time that each was alerted. */
  const alertedAt = new Map<string, number>();

  function alertOnce(topic: string, detail: string): void {
    const last = alertedAt.get(topic);
    if (last !== undefined && now() - last < ALERT_EVERY_MS) return;
    alertedAt.delete(topic);
    for (const oldest of alertedAt.keys()) {
      if (alertedAt.size < TOPICS_MAX) break;
      alertedAt.delete(oldest);
    }
    alertedAt.set(topic, now());
    observer.alert({ kind: 'topicNacked', topic, detail });
  }

  return {
    saw({ id, producerGroup, attempts }, { topic, ifUnrouted }, outcome) {
      const said = SAID[outcome.kind];
      // Dropping it was asked for.
      const isDropped = outcome.kind === 'returned' && ifUnrouted === 'drop';
      if (said === undefined || isDropped || !('detail' in outcome)) return;
      const { detail } = outcome;
      observer.warn(said, { topic, transactionId: id, producerGroup, detail }, topic);
      if (outcome.kind === 'nacked' && attempts + 1 >= NACKED_ATTEMPTS_ALERTED) {
        const others = 'the other queues of the topic get a copy with every attempt';
        alertOnce(topic, `${detail}; meanwhile ${others}`);
      }
    },
  };
}
