import { types } from 'node:util';
import { isEscrowError } from '@escrowmq/protocol';
import type { Observer } from '../domain/ports.js';
import type { Log } from './log.js';
import type { Metrics } from './metrics.js';
import { createRepeats, withoutIds } from './repeats.js';

/** What everybody meets while a part of the system is away; whose call failed first is chance. */
const SHARED_CAUSES: ReadonlyMap<string, string> = new Map([
  ['STORE_UNAVAILABLE', 'the store can not be used'],
]);

/**
 * Tells people: alerts and failures as lines of the log, everything countable as a counter. An alert
 * is a line each time; what repeats by itself is told as repeats.ts says.
 */
export function createObserver(log: Log, metrics: Pick<Metrics, 'count'>): Observer {
  const repeats = createRepeats(log);
  return {
    alert({ kind, ...facts }) {
      log.error('alert', { kind, ...facts });
      metrics.count('alerts', { kind });
    },
    failed(what, error) {
      const code = codeOf(error);
      metrics.count('failures', { reason: code });
      const message = types.isNativeError(error) ? error.message : String(error);
      const detail = `${code} ${withoutIds(message)}`;
      const shared = SHARED_CAUSES.get(code);
      if (shared === undefined) {
        repeats.tell({ subject: withoutIds(what), detail, event: what, error });
      } else {
        repeats.tell({ subject: code, detail, event: shared, facts: { detail: what }, error });
      }
    },
    warn(what, facts, about) {
      repeats.tell({ subject: what, detail: about, event: what, facts });
    },
    recovered(what) {
      repeats.over(SHARED_CAUSES.has(what) ? what : withoutIds(what));
    },
    info(what, facts) {
      log.info(what, facts);
    },
    count(counter, labels, by) {
      metrics.count(counter, labels, by);
    },
  };
}

/** A word of few: a code of ours, or that it has none. */
const codeOf = (error: unknown): string => (isEscrowError(error) ? error.code : 'other');
