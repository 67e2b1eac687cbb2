import {
  createCheckHandler,
  createProducer,
  type EscrowError,
  type Executor,
  type LocalDatabase,
  type Producer,
  type ProducerOptions,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from '@jest/globals';
import { type FakeBroker, startFakeBroker } from '../fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from '../producer-database.js';
import { type Engine, type EngineName, startEngine } from './engine.js';
import type { Layer, OpenLayer } from './layer.js';

export const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };

/** What a suite has while a test runs. */
export interface Bench<Tx> {
  readonly engine: Engine;
  readonly layer: OpenLayer<Tx>;
  readonly broker: FakeBroker;
  readonly producer: Producer;
  producerOf(options?: Partial<ProducerOptions>): Producer;
  /** The id and state of the only transaction that the broker knows. */
  atBroker(): { id: string; state: string };
  /** Asks the check handler; by default one for the layer's database, about nothing but the id. */
  check(
    id: string,
    asked?: { database?: LocalDatabase<Tx>; checkContext?: string },
  ): Promise<string>;
  /** Another database of the same engine, with the same tables, and the layer on it. */
  openElsewhere(): Promise<{ engine: Engine; layer: OpenLayer<Tx>; close(): Promise<void> }>;
}

export function useBench<Tx>(layer: Layer<Tx>, name: EngineName): Bench<Tx> {
  let engine: Engine;
  let open: OpenLayer<Tx>;
  let broker: FakeBroker;
  let producers: Producer[] = [];
  const { logger } = recordingLogger();
  beforeAll(async () => {
    engine = await startEngine(name);
    open = await layer.open(name, engine.url);
  });
  afterAll(async () => {
    await open.close();
    await engine.close();
  });
  beforeEach(async () => {
    broker = await startFakeBroker();
    await engine.query('delete from owner');
    await engine.query('delete from account');
  });
  afterEach(async () => {
    for (const producer of producers) await producer.close();
    producers = [];
    await broker.close();
  });
  const producerOf = (options: Partial<ProducerOptions> = {}) => {
    const made = createProducer({
      brokers: [broker.address],
      producerGroup: 'accounts',
      logger,
      ...options,
    });
    producers.push(made);
    return made;
  };
  return {
    get engine() {
      return engine;
    },
    get layer() {
      return open;
    },
    get broker() {
      return broker;
    },
    get producer() {
      return producers[0] ?? producerOf();
    },
    producerOf,
    atBroker() {
      expect(broker.transactions.size).toBe(1);
      return [...broker.transactions.values()][0]!;
    },
    check: (id, { database = open.database, ...check } = {}) =>
      ask(createCheckHandler({ signingSecret: SIGNING_SECRET, database, logger }), id, { check }),
    async openElsewhere() {
      const elsewhere = await startEngine(name);
      const there = await layer.open(name, elsewhere.url);
      return {
        engine: elsewhere,
        layer: there,
        async close() {
          await there.close();
          await elsewhere.close();
        },
      };
    },
  };
}

export async function failure(work: Promise<unknown>): Promise<EscrowError> {
  return work.then(
    (result) => {
      throw new Error(`it succeeded: ${JSON.stringify(result)}`);
    },
    (error) => error,
  );
}

/** Rows that the local transaction and another one want in opposite orders. */
const ROWS = [11, 12, 13, 14, 15, 16, 17, 18];

export interface Deadlock {
  /** The statement of the local transaction that is its victim. */
  mine: Promise<unknown>;
  /** Waits for the other transaction and ends it. */
  untangle(): Promise<void>;
}

/** What a deadlock needs of a suite. */
export interface DeadlockBench<Tx> {
  readonly engine: Engine;
  readonly layer: Pick<OpenLayer<Tx>, 'run'>;
}

export async function beginDeadlock<Tx>(
  { engine, layer }: DeadlockBench<Tx>,
  tx: Tx,
): Promise<Deadlock> {
  const values = ROWS.map((id) => `(${id})`).join(', ');
  await engine.query(`insert into account (id) values ${values}`);
  const other = await engine.connect();
  // PostgreSQL gives up whoever has waited longest for a second, and this one never does.
  if (engine.dialect === 'postgres') await other.query("set deadlock_timeout = '1h'");
  await other.query('begin');
  await layer.run(tx, "update account set phone = 'a' where id = 11");
  // More rows than the local transaction changed: InnoDB rolls back the smaller one.
  await other.query("update account set phone = 'b' where id > 11");
  const waiting = other.query("update account set phone = 'b' where id = 11");
  return {
    mine: layer.run(tx, "update account set phone = 'a' where id = 12"),
    async untangle() {
      await waiting;
      await other.query('rollback');
      other.release();
    },
  };
}

/** Ends with the statement of `tx` as the victim of a deadlock. */
export async function deadlock<Tx>(bench: DeadlockBench<Tx>, tx: Tx): Promise<void> {
  const { mine, untangle } = await beginDeadlock(bench, tx);
  try {
    await mine;
  } finally {
    await untangle();
  }
}

/** How a connection names itself, and how another one ends it. */
const CONNECTION = {
  mysql: { ask: 'select connection_id() as id', kill: (id: number) => `kill ${id}` },
  postgres: {
    ask: 'select pg_backend_pid() as id',
    kill: (id: number) => `select pg_terminate_backend(${id})`,
  },
};

/** Cuts the connection that `executor` sends on, at the server. */
export async function cutConnection(engine: Engine, executor: Executor): Promise<void> {
  if (engine.dialect === 'sqlite') throw new Error('SQLite has no server to cut a connection');
  const { ask, kill } = CONNECTION[engine.dialect];
  const [row] = await executor.select(ask, { id: 'number' });
  await engine.query(kill(row!.id));
}
