import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createProducer, type Producer } from '@escrowmq/producer';
import { fromMysql2 } from '../../../database/src/adapters/mysql2.js';
import { type BrokerProcess, startBrokerProcess } from '../broker-process.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../servers.js';
import { until } from '../until.js';
import {
  ACCOUNTS_MAX,
  type CrashBench,
  isClean,
  type Part,
  type Truth,
  truthOf,
} from './crash-bench.js';
import {
  type Action,
  type Enduring,
  type Failpoint,
  hasEnded,
  openFailpoint,
  pathOf,
} from './crash-case.js';

/*
 * One case each: something fails at one point, everything else goes on, and when all is quiet the
 * databases are asked.
 */
export interface CrashCase {
  point: string;
  action: Action;
  /** @default 1 */
  time?: number;
}

/** Leases of 1.5 s, checks every half second, retries: a few seconds, or 26 on a machine with a load of 13. */
const QUIET_MS_MAX = 60_000;

/** A broker that stands still or starts again takes longer than a producer waits by default. */
const PATIENT = { prepareTimeoutMs: 60_000, verdictTimeoutMs: 60_000 };

let casesSoFar = 0;
const nextAccounts = () => {
  casesSoFar += 1;
  return casesSoFar * ACCOUNTS_MAX;
};

/** The broker fails, with a store of its own, in work of every kind. */
export async function failBroker(bench: CrashBench, crash: CrashCase): Promise<Truth> {
  const failpoint = await openFailpoint(crash.point, crash.action, crash.time ?? 1);
  const store = await freshMysqlDatabase();
  const producerGroup = uniqueName('failing-broker');
  const first = nextAccounts();
  const running: BrokerProcess[] = [];
  let child: ChildProcess | undefined;
  const start = async (environment: Record<string, string>, seen?: (it: ChildProcess) => void) => {
    const rabbitmq = rabbitmqUrl();
    const onLog = (_entry: unknown, from: ChildProcess) => seen?.(from);
    const broker = await startBrokerProcess({ store, rabbitmq, environment, onLog });
    running.push(broker);
    return broker;
  };
  const failing = await start(failpoint.environment, (it) => {
    child = it;
  });
  await bench.register(failing.url, producerGroup);
  const brokers = [failing.url];
  const producer = createProducer({ brokers, producerGroup, logger: SILENT, ...PATIENT });
  try {
    await failpoint.arm();
    const work = workOfEveryKind(bench, producer, first);
    const enduring: Enduring = {
      child: () => child as ChildProcess,
      restart: () => failing.start(),
      standIn: async () => void (await start({})),
    };
    await failpoint.endured(enduring);
    await work;
    const part = { first, producerGroup, consumerGroup: bench.consumerGroup, store };
    return await quiet(bench, part, enduring);
  } finally {
    await producer.close();
    await Promise.all(running.map((broker) => broker.kill()));
    await failpoint.remove();
  }
}

/** Two that commit, one of them delayed, one that fails, one nobody tells of, one without work. */
async function workOfEveryKind(
  { pool, topic }: CrashBench,
  producer: Producer,
  first: number,
): Promise<void> {
  const insert = 'insert into account (id, body) values (?, ?)';
  const message = (account: number) => ({ topic, data: { account, body: `account ${account}` } });
  const register = (account: number, more: object, failure?: Error) =>
    producer.transaction(pool, { ...message(account), ...more }, async (tx) => {
      await tx.execute(insert, [account, `account ${account}`]);
      if (failure !== undefined) throw failure;
    });
  async function registerSilently(account: number): Promise<void> {
    const connection = await pool.getConnection();
    try {
      await connection.beginTransaction();
      await producer.enlist(fromMysql2(connection), message(account));
      await connection.execute(insert, [account, `account ${account}`]);
      await connection.commit();
    } catch (error) {
      await connection.rollback();
      throw error;
    } finally {
      connection.release();
    }
  }
  // Each may fail with the broker. What it then is, is for the databases to say.
  await Promise.allSettled([
    register(first, {}),
    register(first + 1, { delayMs: 500 }),
    register(first + 2, {}, new Error('refused by the service')),
    registerSilently(first + 3),
    producer.prepare({ messages: [message(first + 4)] }),
  ]);
}

/** A producer fails, and nobody starts it again. */
export async function failProducer(bench: CrashBench, crash: CrashCase): Promise<Truth> {
  const failpoint = await openFailpoint(crash.point, crash.action, crash.time ?? 1);
  const producerGroup = uniqueName('failing-producer');
  const first = nextAccounts();
  await bench.register(bench.broker.url, producerGroup);
  await failpoint.arm();
  const { database, broker, topic } = bench;
  const args = [database, broker.url, producerGroup, topic, String(first)];
  const child = startChild('./producer-child.mjs', args, failpoint);
  try {
    await failpoint.endured({ child: () => child });
    await until('the producer has ended', () => hasEnded(child), QUIET_MS_MAX);
    const { consumerGroup, store } = bench;
    return await quiet(bench, { first, producerGroup, consumerGroup, store });
  } finally {
    child.kill('SIGKILL');
    await failpoint.remove();
  }
}

/** A consumer fails, and is started again. */
export async function failConsumer(bench: CrashBench, crash: CrashCase): Promise<Truth> {
  const failpoint = await openFailpoint(crash.point, crash.action, crash.time ?? 1);
  const producerGroup = uniqueName('tells-a-failing-consumer');
  const consumerGroup = uniqueName('failing-consumer');
  const topic = uniqueName('account');
  const first = nextAccounts();
  const producer = createProducer({ brokers: [bench.broker.url], producerGroup });
  await bench.register(bench.broker.url, producerGroup);
  let child: ChildProcess | undefined;
  async function start(): Promise<void> {
    const args = [rabbitmqUrl(), bench.database, topic, consumerGroup];
    child = startChild('./consumer-child.mjs', args, failpoint);
    if (child.stdout !== null) await once(child.stdout, 'data');
  }
  try {
    await start();
    await failpoint.arm();
    const work = workOfEveryKind({ ...bench, topic }, producer, first);
    const enduring: Enduring = { child: () => child as ChildProcess, restart: start };
    await failpoint.endured(enduring);
    await work;
    const part = { first, producerGroup, consumerGroup, store: bench.store };
    return await quiet(bench, part, enduring);
  } finally {
    child?.kill('SIGKILL');
    await producer.close();
    await failpoint.remove();
  }
}

const SILENT = { warn: () => undefined, error: () => undefined };

function startChild(script: string, args: string[], failpoint: Failpoint): ChildProcess {
  return spawn(process.execPath, [pathOf(script), ...args], {
    env: { PATH: process.env.PATH, ...failpoint.environment },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

/** The truth when everything has come to its end, or when it should have. */
async function quiet(bench: CrashBench, part: Part, enduring?: Enduring): Promise<Truth> {
  let truth = await truthOf(bench.pool, part);
  const isQuiet = async () => {
    // An error in the wrong place ends a process; whoever looks after it starts it again.
    if (enduring !== undefined && hasEnded(enduring.child())) await enduring.restart?.();
    truth = await truthOf(bench.pool, part);
    return isClean(truth);
  };
  // What is still wrong then is the test's to say.
  await until('all is quiet', isQuiet, QUIET_MS_MAX).catch(() => undefined);
  return truth;
}
