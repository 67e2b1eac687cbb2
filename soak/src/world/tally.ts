import type { LinkName } from '../nemesis/fault.js';
import { Report } from '../services/settings.js';
import { PRODUCERS } from './names.js';

/* What the parties say while they run. It steers the run and bears witness to nothing. */

export interface Tally {
  outcomes: { committed: number; thrown: number; unknown: number };
  duplicates: number;
  /** Connections that were cut at the moment that matters. */
  struck: Partial<Record<LinkName, number>>;
}

export interface Hearing {
  tally: Tally;
  /** Takes what the process of that name sends. */
  hear(name: string): (message: unknown) => void;
  /** Transactions that were started so far. */
  started(): number;
  /** All producers have ended their work. */
  isDone(): boolean;
}

export function createHearing(): Hearing {
  const tally: Tally = {
    outcomes: { committed: 0, thrown: 0, unknown: 0 },
    duplicates: 0,
    struck: {},
  };
  const started = new Map<string, number>();
  const done = new Set<string>();
  return {
    tally,
    hear: (name) => (message) => {
      const parsed = Report.safeParse(message);
      if (!parsed.success) return;
      const told = parsed.data;
      if ('started' in told) {
        started.set(name, Math.max(told.started, started.get(name) ?? 0));
        // It was started again, and may have more to do.
        done.delete(name);
      } else if ('done' in told) done.add(name);
      else if ('outcome' in told) tally.outcomes[told.outcome] += 1;
      else if ('duplicate' in told) tally.duplicates += 1;
    },
    started: () => [...started.values()].reduce((sum, count) => sum + count, 0),
    isDone: () => PRODUCERS.every((name) => done.has(name)),
  };
}
