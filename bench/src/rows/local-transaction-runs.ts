import { type Contender, loadContender } from '../measure/pairs.js';
import { type OutboxRelay, startOutboxRelay } from '../peers/outbox-process.js';
import type { RelaySettings } from '../peers/outbox-relay.js';
import { type BenchContext, DATA_BYTES, nodeLoad } from './group.js';

/*
 * What the rows about local transactions share: a MariaDB for the business alone, a broker with its
 * store on the other one, and an outbox relay where there is an outbox. CPU is counted for each,
 * so that what a message costs the business database stands apart from what it costs elsewhere.
 */

/** How a local transaction gets its message out. */
export type Means =
  | { way: 'plain' }
  | { way: 'escrow' }
  | ({ way: 'outbox' } & Pick<RelaySettings, 'relay' | 'pauseAfter'>);

export const PLAIN: Means = { way: 'plain' };
export const ESCROW: Means = { way: 'escrow' };
/** One relay that publishes a batch at a time and lets 100 ms of messages gather for the next. */
export const GOOD_OUTBOX: Means = { way: 'outbox', relay: 'batch', pauseAfter: 'partBatch' };
/** The same, reading again at once as long as it finds anything: sooner, at the database's cost. */
export const EAGER_OUTBOX: Means = { way: 'outbox', relay: 'batch', pauseAfter: 'nothing' };
/** One message after the other, each step awaited. */
export const COMMON_OUTBOX: Means = { way: 'outbox', relay: 'oneByOne', pauseAfter: 'partBatch' };

/**
 * A relay that falls behind works on for four times as long, and so gets warm by itself:
 * what 8 s at full rate leave in the outbox takes it half of the minute that is waited for.
 */
const COMMON_WARM_UP_SECONDS_MAX = 2;

export interface LocalTransactionRuns {
  contender(name: string, means: Means, load: { name: string; settings: object }): Contender;
  /** Stops the broker. */
  close(): Promise<void>;
}

/** The type of every queue here: what consumer groups of EscrowMQ have. */
export const QUEUE_TYPE = 'quorum';

export async function startLocalTransactionRuns(
  context: BenchContext,
): Promise<LocalTransactionRuns> {
  const { rabbitmq, mariadb: store, ...servers } = context.servers;
  const business = await servers.startMariadb();
  const broker = await servers.startBroker({ store: 'mariadb' });

  /** On a database of its own, with a relay of its own that rests while others have their turns. */
  function contender(name: string, means: Means, load: { name: string; settings: object }) {
    let database = '';
    let relay: OutboxRelay | undefined;
    const loop = loadContender(name, () => ({
      command: nodeLoad(load.name),
      settings: {
        ...load.settings,
        seconds: context.seconds,
        warmUpSeconds:
          means === COMMON_OUTBOX
            ? Math.min(context.warmUpSeconds, COMMON_WARM_UP_SECONDS_MAX)
            : context.warmUpSeconds,
        way: means.way,
        database,
        broker: broker.url,
        rabbitmq: rabbitmq.url,
        queueType: QUEUE_TYPE,
        dataBytes: DATA_BYTES,
      },
      processes: {
        business: business.pid(),
        store: store.pid(),
        broker: broker.pid(),
        rabbitmq: rabbitmq.pid(),
        ...(relay === undefined ? {} : { relay: relay.pid }),
      },
    }));
    const resting: Contender = {
      name,
      async open() {
        database = await business.createDatabase();
        if (means.way === 'outbox') {
          relay = await startOutboxRelay({ ...means, database, rabbitmq: rabbitmq.url });
        }
        await loop.open?.();
        relay?.rest();
      },
      async run() {
        relay?.work();
        const run = await loop.run();
        relay?.rest();
        return run;
      },
      async close() {
        // What is in the outbox keeps the load from closing.
        relay?.work();
        await loop.close?.();
        await relay?.stop();
      },
    };
    return resting;
  }

  return { contender, close: () => broker.stop() };
}
