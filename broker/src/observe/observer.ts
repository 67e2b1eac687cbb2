import type { Observer } from '../domain/ports.js';
import type { Log } from './log.js';
import type { Metrics } from './metrics.js';

/** Tells people: alerts and failures as lines of the log, everything countable as a counter. */
export function createObserver(log: Log, metrics: Pick<Metrics, 'count'>): Observer {
  return {
    alert({ kind, ...facts }) {
      log.error('alert', { kind, ...facts });
      metrics.count('alerts', { kind });
    },
    failed(what, error) {
      log.warn(what, {}, error);
    },
    info(what, facts) {
      log.info(what, facts);
    },
    count(counter, labels, by) {
      metrics.count(counter, labels, by);
    },
  };
}
