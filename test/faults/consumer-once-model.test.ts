import { type ChildProcess, spawn } from 'node:child_process';
import { once as onceEvent } from 'node:events';
import { fileURLToPath } from 'node:url';
import { ensureConsumedTable, ensureLatestTable } from '@escrowmq/consumer';
import { deadLetterQueueName, queueName } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { newTransactionId, publish } from '../support/publish.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * Many messages, some of them twice and none in order, through three processes of which one dies in
 * the middle: the database must come to what a pure function of the list of messages says.
 */

const CHILD = fileURLToPath(new URL('../support/consumer-once-child.mjs', import.meta.url));
const MESSAGES = 10_000;
const DUPLICATES = MESSAGES / 20;
const ACCOUNTS = 50;
const PRODUCTS = 40;
/** Every so many messages one fails three times before it succeeds. */
const FAILING_EVERY = 250;
const RETRY_DELAY_MS = 10;
/** Publishes that wait for their confirm at a time. */
const PUBLISHING_MAX = 500;

interface Data {
  account: number;
  amount: number;
  product: number;
  version: number;
  price: number;
  failures: number;
}

interface Sent {
  transactionId: string;
  data: Data;
}

interface State {
  accounts: { id: number; balance: number; applied: number }[];
  products: { id: number; version: number; price: number }[];
}

const range = (count: number) => Array.from({ length: count }, (_, n) => n);

/** What the messages come to, in whatever order and however often each of them is in the list. */
function model(messages: readonly Sent[]): State {
  const accounts = range(ACCOUNTS).map((id) => ({ id, balance: 0, applied: 0 }));
  const products = range(PRODUCTS).map((id) => ({ id, version: 0, price: 0 }));
  const seen = new Set<string>();
  for (const { transactionId, data } of messages) {
    if (seen.has(transactionId)) continue;
    seen.add(transactionId);
    const account = accounts[data.account]!;
    account.balance += data.amount;
    account.applied += 1;
    const product = products[data.product]!;
    if (data.version > product.version) {
      Object.assign(product, { version: data.version, price: data.price });
    }
  }
  return { accounts, products };
}

/** The same numbers in every run. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function messagesFrom(seed: number): Sent[] {
  const random = randomFrom(seed);
  const messages: Sent[] = range(MESSAGES).map((n) => ({
    transactionId: newTransactionId(),
    data: {
      account: random(ACCOUNTS),
      amount: random(1_000) - 300,
      product: random(PRODUCTS),
      // No two about one product are the same.
      version: n + 1,
      price: random(10_000),
      failures: n % FAILING_EVERY === 0 ? 3 : 0,
    },
  }));
  for (const n of range(DUPLICATES)) messages.push(messages[(n * 19) % MESSAGES]!);
  for (let last = messages.length - 1; last > 0; last -= 1) {
    const other = random(last + 1);
    [messages[last], messages[other]] = [messages[other]!, messages[last]!];
  }
  return messages;
}

let url: string;
let pool: Pool;
let bench: ConsumerBench;
let children: ChildProcess[];

beforeAll(async () => {
  url = await freshMysqlDatabase();
  pool = createPool(url);
  await ensureConsumedTable(pool);
  await ensureLatestTable(pool);
  await pool.query('create table account (id int primary key, balance int, applied int)');
  await pool.query('create table product (id int primary key, version int, price int)');
});
afterAll(() => pool.end());

beforeEach(async () => {
  children = [];
  bench = await openBench(rabbitmqUrl(), [RETRY_DELAY_MS]);
  for (const table of ['account', 'product', 'escrow_consumed', 'escrow_latest']) {
    await pool.query(`delete from ${table}`);
  }
  await pool.query('insert into account values ?', [range(ACCOUNTS).map((id) => [id, 0, 0])]);
  await pool.query('insert into product values ?', [range(PRODUCTS).map((id) => [id, 0, 0])]);
});
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  await bench.close();
});

async function startChild(killAt = 0): Promise<ChildProcess> {
  const args = [rabbitmqUrl(), url, bench.topic, bench.group, String(killAt)];
  const child = spawn(process.execPath, [CHILD, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const [said] = await onceEvent(child.stdout!, 'data');
  expect(String(said)).toBe('consuming\n');
  return child;
}

const gone = async (child: ChildProcess) => {
  if (child.exitCode === null && child.signalCode === null) await onceEvent(child, 'exit');
  return { exitCode: child.exitCode, signal: child.signalCode };
};

async function count(table: string): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>(`select count(*) as counted from ${table}`);
  return Number(rows[0]?.counted);
}

async function stateOfDatabase(): Promise<State> {
  const [accounts] = await pool.query('select id, balance, applied from account order by id');
  const [products] = await pool.query('select id, version, price from product order by id');
  return { accounts: accounts as State['accounts'], products: products as State['products'] };
}

async function publishAll(messages: readonly Sent[]): Promise<void> {
  for (let from = 0; from < messages.length; from += PUBLISHING_MAX) {
    const some = messages.slice(from, from + PUBLISHING_MAX);
    await Promise.all(some.map((sent) => publish(bench.channel, { topic: bench.topic, ...sent })));
  }
}

const waitingIn = async (queue: string) => (await bench.channel.checkQueue(queue)).messageCount;

test('ten thousand messages, some twice and none in order, come to what the model says, though one of three processes is killed (F63)', async () => {
  const messages = messagesFrom(20_260_728);
  const expected = model(messages);
  const doomed = await startChild(Math.floor(MESSAGES / 6));
  const others = [await startChild(), await startChild()];
  await publishAll(messages);
  expect(await gone(doomed)).toMatchObject({ signal: 'SIGKILL' });
  await until(
    'all are applied',
    async () => (await count('escrow_consumed')) === MESSAGES,
    120_000,
  );
  const queue = queueName(bench.topic, bench.group);
  await until('nothing waits', async () => (await waitingIn(queue)) === 0, 30_000);
  for (const child of others) child.kill('SIGTERM');
  for (const child of others) expect(await gone(child)).toEqual({ exitCode: 0, signal: null });
  expect(await waitingIn(deadLetterQueueName(bench.topic, bench.group))).toBe(0);
  expect(await stateOfDatabase()).toEqual(expected);
  expect(await count('escrow_latest')).toBe(PRODUCTS);
}, 240_000);

test('a process that is killed between COMMIT and its acknowledgement has applied the message once (F64)', async () => {
  const [sent] = messagesFrom(7) as [Sent];
  const data = { ...sent.data, failures: 0 };
  const expected = model([{ ...sent, data }]);
  const doomed = await startChild(1);
  await publish(bench.channel, { topic: bench.topic, transactionId: sent.transactionId, data });
  expect(await gone(doomed)).toMatchObject({ signal: 'SIGKILL' });
  expect(await count('escrow_consumed')).toBe(1);
  const heir = await startChild();
  await until('the heir has it', async () => (await count('escrow_latest')) === 1);
  heir.kill('SIGTERM');
  expect(await gone(heir)).toEqual({ exitCode: 0, signal: null });
  expect(await stateOfDatabase()).toEqual(expected);
});
