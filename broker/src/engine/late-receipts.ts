import { isToBeTold, type LateReceipt } from '../domain/late-receipts.js';
import type { Observer } from '../domain/ports.js';

/*
 * Tells people of receipts that came too late: for transactions that are gone, or that an operator has
 * closed. A group that gives up on what is gone is not compensated by anybody, so it must not pass in
 * silence. Every one is counted. Of one cause there is an alert at once and then at most once a minute;
 * what comes in between is told at `warn`, which tells what repeats in few lines.
 */

/** Once a minute and cause is what a person can follow. */
const ALERT_EVERY_MS = 60_000;
/** Group names come from a queue: whoever makes them up must not fill the memory. */
const CAUSES_MAX = 200;
const EXAMPLES_MAX = 10;

const WHAT = {
  closed: 'transactions that an operator has closed; they are recorded, and it stays closed',
  purged: 'transactions that have settled and were purged; nothing was done',
  unsettled: 'transactions that were purged without having settled; nothing was done',
  unknown: 'transactions that this store does not know, or not any more; nothing was done',
} as const satisfies Record<LateReceipt['why'], string>;

export interface LateReceipts {
  tell(late: readonly LateReceipt[]): void;
}

export function createLateReceipts(deps: {
  observer: Pick<Observer, 'alert' | 'warn' | 'count'>;
  /** Monotonic milliseconds. */
  now(): number;
}): LateReceipts {
  const { observer, now } = deps;
  const alertedAt = new Map<string, number>();

  /** The oldest of many causes is forgotten, and alerted again when it comes back. */
  function mayAlert(cause: string): boolean {
    const last = alertedAt.get(cause);
    if (last !== undefined && now() - last < ALERT_EVERY_MS) return false;
    alertedAt.delete(cause);
    const [oldest] = alertedAt.keys();
    if (alertedAt.size >= CAUSES_MAX && oldest !== undefined) {
      if (now() - (alertedAt.get(oldest) ?? 0) < ALERT_EVERY_MS) return false;
      alertedAt.delete(oldest);
    }
    alertedAt.set(cause, now());
    return true;
  }

  function tellCause(cause: string, [first, ...others]: readonly LateReceipt[]): void {
    if (first === undefined) return;
    const { why, consumerGroup, kind } = first;
    const count = 1 + others.length;
    const examples = [first, ...others].slice(0, EXAMPLES_MAX).map(({ id }) => id);
    const said = kind === 'failed' ? 'gave up on' : 'consumed';
    const detail = `${consumerGroup} ${said} messages of ${WHAT[why]}`;
    if (mayAlert(cause)) {
      observer.alert({ kind: 'lateReceipts', consumerGroup, count, examples, detail });
    } else {
      observer.warn('receipts came too late', { consumerGroup, count, examples, detail }, cause);
    }
  }

  return {
    tell(late) {
      const causes = new Map<string, LateReceipt[]>();
      for (const receipt of late) {
        observer.count('lateReceipts', { kind: receipt.kind, reason: receipt.why });
        if (!isToBeTold(receipt)) continue;
        const cause = `${receipt.why} ${receipt.kind} ${receipt.consumerGroup}`;
        const same = causes.get(cause);
        if (same === undefined) causes.set(cause, [receipt]);
        else same.push(receipt);
      }
      for (const [cause, receipts] of causes) tellCause(cause, receipts);
    },
  };
}
