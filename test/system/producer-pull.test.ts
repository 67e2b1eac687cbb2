import { type CheckPollerOptions, createCheckPoller } from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import {
  type ProducerDatabase,
  recordingLogger,
  startProducerDatabase,
} from '../support/producer-database.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** A producer that nobody can call: its group has no check URL, and it polls for its checks. */
let database: ProducerDatabase;
let store: Awaited<ReturnType<typeof freshStore>>;
/** Two instances on one store: either may claim a check. */
let brokers: BrokerProcess[];

const group = uniqueName('pulling');
const closing: (() => Promise<void>)[] = [];

beforeAll(async () => {
  database = await startProducerDatabase();
  store = await freshStore('mysql');
  const settings = { store: store.url, rabbitmq: rabbitmqUrl() };
  brokers = [await startBrokerProcess(settings), await startBrokerProcess(settings)];
  await registerGroup(brokers[0]!.url, group, [], { firstDelayMs: 0, delayMsMax: 200 });
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
afterAll(async () => {
  await Promise.all(brokers.map((broker) => broker.stop()));
  await store.remove();
  await database.close();
});

function pollerOf(options: Partial<CheckPollerOptions> = {}) {
  const poller = createCheckPoller({
    brokers: brokers.map(({ url }) => url),
    producerGroup: group,
    database: database.pool(),
    ...options,
  });
  closing.push(() => poller.close());
  return poller;
}

interface Prepared {
  at?: BrokerProcess;
  /** What the local transaction kept in its barrier row, where it committed. */
  committed?: { data?: unknown };
  message?: object;
}

/** What a producer leaves behind that dies before it tells the broker. The check is due at once. */
async function prepare({ at = brokers[0]!, committed, message = { data: 1 } }: Prepared = {}) {
  const id = uuidv7();
  if (committed !== undefined) {
    await database.observer.query(
      "insert into escrow_barrier (transaction_id, decision, created_at, data) values (unhex(replace(?, '-', '')), 'commit', utc_timestamp(3), ?)",
      [id, committed.data === undefined ? null : JSON.stringify(committed.data)],
    );
  }
  const { status, body } = await call(`${at.url}/v1/transactions`, 'POST', {
    id,
    producerGroup: group,
    messages: [{ topic: 'nobody', routingKey: 'a', ifUnrouted: 'drop', ...message }],
  });
  expect([status, body]).toMatchObject([201, { state: 'prepared' }]);
  return id;
}

async function untilDecided(ids: string[]): Promise<string[]> {
  const decisionOf = async (id: string) => (await view(brokers[0]!.url, id)).decision?.decision;
  await until(
    'all are decided',
    async () =>
      (await Promise.all(ids.map(decisionOf))).every((decision) => decision !== undefined),
    30_000,
  );
  return Promise.all(ids.map(async (id) => String(await decisionOf(id))));
}

test('what was committed is committed, and what never was is rolled back', async () => {
  pollerOf().start();
  const ids = [
    await prepare({ committed: {} }),
    await prepare({ committed: {}, at: brokers[1]! }),
    await prepare({ at: brokers[1]! }),
  ];
  expect(await untilDecided(ids)).toEqual(['commit', 'commit', 'rollback']);
  expect(await database.barrier(ids[2]!)).toBe('rollback');
  const { decision } = await view(brokers[0]!.url, ids[0]!);
  expect(decision).toMatchObject({ by: 'check pull' });
});

test('a producer that polls one instance of the broker gets the checks of all', async () => {
  pollerOf({ brokers: [brokers[1]!.url] }).start();
  const ids = await Promise.all(Array.from({ length: 20 }, () => prepare({ committed: {} })));
  expect(new Set(await untilDecided(ids))).toEqual(new Set(['commit']));
});

test('one run answers what is due', async () => {
  const id = await prepare();
  const poller = pollerOf({ brokers: [brokers[0]!.url] });
  expect(await poller.runOnce()).toBe(1);
  expect(await untilDecided([id])).toEqual(['rollback']);
});

test('a broker that was killed is polled again when it is back', async () => {
  const { logger, records } = recordingLogger();
  pollerOf({ brokers: [brokers[0]!.url], logger }).start();
  await untilDecided([await prepare()]);
  await brokers[0]!.kill();
  await until('the failure is told', () => records.length > 0);
  await brokers[0]!.start();
  expect(await untilDecided([await prepare({ committed: {} })])).toEqual(['commit']);
  expect(records).toMatchObject([{ fields: { error: { code: 'BROKER_UNREACHABLE' } } }]);
});

test('the data that prepare left open are those that the local transaction kept', async () => {
  const messageData = [{ number: 0, data: { userId: 7 } }];
  pollerOf().start();
  const id = await prepare({ committed: { data: messageData }, message: { dataAtCommit: true } });
  expect(await untilDecided([id])).toEqual(['commit']);
});
