import type { Observer } from '../domain/ports.js';
import type { Webhook } from '../domain/webhook.js';

/*
 * Tells people of messages that a webhook gave up on, after their dead letters were confirmed. The
 * first is told at once. An endpoint that is gone for good may bring thousands, so those that follow
 * within a minute are told together; the counter has each.
 */

/** Once a minute and webhook is what a person can follow. */
const TOLD_EVERY_MS = 60_000;

export interface GiveUp {
  messageId: string | undefined;
  cause: string;
}

export interface GiveUps {
  tell(webhook: Webhook, giveUp: GiveUp): void;
  /** Tells what has waited long enough; to be called now and then. */
  tellWaiting(): void;
}

interface Told {
  webhook: Webhook;
  at: number;
  waiting: number;
  last: GiveUp;
}

export function createGiveUps(deps: {
  observer: Pick<Observer, 'alert' | 'count'>;
  /** Monotonic milliseconds. */
  now(): number;
}): GiveUps {
  const { observer, now } = deps;
  const byName = new Map<string, Told>();

  function alert({ webhook, last, waiting }: Told): void {
    observer.alert({
      kind: 'webhookGaveUp',
      webhook: webhook.name,
      topic: webhook.topic,
      consumerGroup: webhook.consumerGroup,
      ...(last.messageId === undefined ? {} : { messageId: last.messageId }),
      detail: waiting > 1 ? `${last.cause} (the last of ${waiting} messages)` : last.cause,
    });
  }

  return {
    tell(webhook, last) {
      observer.count('webhookCalls', { webhook: webhook.name, result: 'gaveUp' });
      const told = byName.get(webhook.name);
      if (told !== undefined) {
        told.last = last;
        told.waiting += 1;
        return;
      }
      const first = { webhook, at: now(), waiting: 0, last };
      byName.set(webhook.name, first);
      alert(first);
    },
    tellWaiting() {
      for (const [name, told] of byName) {
        if (now() - told.at < TOLD_EVERY_MS) continue;
        if (told.waiting === 0) {
          byName.delete(name);
          continue;
        }
        alert(told);
        told.at = now();
        told.waiting = 0;
      }
    },
  };
}
