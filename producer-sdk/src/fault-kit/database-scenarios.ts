import type { KitProxy } from './database-proxy.js';
import type { Play } from './scenarios.js';
import type { Trial } from './trial.js';

/* What needs a hand on the connections between the producer and its database. */

const withProxy =
  (play: (trial: Trial, proxy: KitProxy) => Promise<void>): Play =>
  async (trial) => {
    if (trial.proxy === undefined) return NO_PROXY;
    await play(trial, trial.proxy);
    return undefined;
  };

const NO_PROXY = 'no connection to the database goes through kit.proxy()';

const cutCommit = (when: 'before' | 'after') =>
  withProxy(async (trial, proxy) => {
    // Only now: whatever came before it had COMMITs of its own.
    trial.start('waits');
    await trial.paused();
    const cut = proxy.cutNextCommit(when);
    trial.resume('commits');
    await trial.during(
      cut,
      'no COMMIT came through kit.proxy(): connect the pool of transaction() to its host and port, without TLS or compression',
    );
    trial.commitWasCut();
  });

const outage = withProxy(async (trial, proxy) => {
  let isLost = true;
  trial.episode.fault = (op) => (op === 'commit' && isLost ? { lose: 'request' } : {});
  trial.mustCommit();
  trial.start('commits');
  await trial.prepared();
  await trial.arrivedOrEnded('commit');
  proxy.setReachable(false);
  try {
    await trial.ask('while the database could not be reached');
  } finally {
    proxy.setReachable(true);
    isLost = false;
  }
});

export const DATABASE_SCENARIOS = {
  'a COMMIT that never reaches the database': cutCommit('before'),
  'a COMMIT whose answer gets lost': cutCommit('after'),
  'a check while the database can not be reached': outage,
} satisfies Record<string, Play>;
