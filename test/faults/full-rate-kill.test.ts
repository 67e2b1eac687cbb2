import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { createProducer, isEscrowError, type Producer } from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import amqplib from 'amqplib';
import { uuidv7 } from 'uuidv7';
import { call } from '../support/broker-client.js';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { until } from '../support/until.js';

const CALLERS = 256;
const KILLS = 10;
/** Between two kills: every caller has come round several times, so all of them are at it. */
const COMMITS_BETWEEN_KILLS_MIN = 2_000;
/** Of the pause on top, at random: a kill finds batches in every phase. */
const PAUSE_MS_MAX = 300;
/** Longer than a broker takes to come back on a busy machine: callers outlast every kill. */
const PATIENCE_MS = 30_000;
/** What one page of the search holds at most. */
const PAGE = 200;

/** What callers asked for and were told, against what is there in the end. */
interface Told {
  prepared: Set<string>;
  /** Asked for, whether or not an answer came. */
  commitAsked: Set<string>;
  committed: Set<string>;
  rolledBack: Set<string>;
}

interface Stopping {
  /** No caller begins another transaction. */
  now: boolean;
  /** The test has failed: nobody repeats a call either. */
  failed: boolean;
}

type Verdict = 'commit' | 'rollback' | 'none';

describe('SIGKILL of the broker at full rate, with 256 callers of the SDK', () => {
  let rabbitmq: PrivateRabbitmq;
  beforeAll(async () => {
    rabbitmq = await startPrivateRabbitmq();
  });
  afterAll(() => rabbitmq.remove());

  test.each(['sqlite', 'mysql'] as const)(
    `10 times on %s: every acknowledged prepare and commit is there, and forwarded; nothing else is (F03, F24, F50, F51)`,
    async (kind) => {
      const store = await freshStore(kind);
      const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
      const producer = createProducer({
        // Two addresses of a broker that comes back: an attempt at the one is repeated at the other.
        brokers: [broker.url, broker.url],
        producerGroup: 'accounts',
        prepareTimeoutMs: PATIENCE_MS,
        verdictTimeoutMs: PATIENCE_MS,
      });
      // Nothing is asked during the test: what has no verdict stays without one.
      await producer.registerGroup({ checkUrls: [], checkPolicy: { firstDelayMs: 600_000 } });
      const topic = `kill-${kind}`;
      const arrived = await collect(rabbitmq.url, topic);
      const told: Told = {
        prepared: new Set(),
        commitAsked: new Set(),
        committed: new Set(),
        rolledBack: new Set(),
      };
      const stopping: Stopping = { now: false, failed: false };
      const callers = Promise.all(
        Array.from({ length: CALLERS }, (_, n) =>
          caller(producer, topic, { told, stopping, verdict: verdictOf(n) }),
        ),
      );
      // A caller that was refused ends the test and all others, also before the next kill.
      callers.catch(() => {
        stopping.now = true;
        stopping.failed = true;
      });

      try {
        for (let kill = 0; kill < KILLS && !stopping.failed; kill++) {
          const enough = told.committed.size + COMMITS_BETWEEN_KILLS_MIN;
          await until(
            'callers are at full rate again',
            () => stopping.failed || told.committed.size >= enough,
            PATIENCE_MS,
          );
          await new Promise((resolve) => setTimeout(resolve, Math.random() * PAUSE_MS_MAX));
          await broker.kill();
          await broker.start();
        }
        stopping.now = true;
        await callers;

        await until(
          'nothing is left to forward',
          async () => (await idsIn(broker.url, 'committed')).size === 0,
          60_000,
        );
        const forwarded = await idsIn(broker.url, 'forwarded');
        const rolledBack = await idsIn(broker.url, 'rolledBack');
        const prepared = await idsIn(broker.url, 'prepared');
        // Of all three, or the rest says nothing.
        for (const some of [told.committed, told.rolledBack, prepared]) {
          expect(some.size).toBeGreaterThan(0);
        }
        const there = new Set([...forwarded, ...rolledBack, ...prepared]);
        expect(missing(told.prepared, there)).toEqual([]);
        expect(missing(told.committed, forwarded)).toEqual([]);
        expect(missing(told.rolledBack, rolledBack)).toEqual([]);
        await until('what is forwarded has arrived', () => isWithin(forwarded, arrived.ids));
        // The other way round: nothing was sent, or stands as forwarded, that nobody committed.
        expect(missing(arrived.ids, told.commitAsked)).toEqual([]);
        expect(missing(forwarded, told.commitAsked)).toEqual([]);
        expect(await broker.stop()).toBe(0);
      } finally {
        stopping.now = true;
        stopping.failed = true;
        await producer.close();
        await arrived.close();
        await store.remove();
      }
    },
    110_000,
  );
});

/** Six of eight commit; one rolls back; one leaves its transactions without a verdict. */
function verdictOf(caller: number): Verdict {
  if (caller % 8 === 0) return 'rollback';
  return caller % 8 === 1 ? 'none' : 'commit';
}

const isWithin = (ids: Set<string>, all: Set<string>) => [...ids].every((id) => all.has(id));

/** A few of those that are not in `all`: what an error can show. */
const missing = (ids: Set<string>, all: Set<string>) =>
  [...ids].filter((id) => !all.has(id)).slice(0, 5);

async function caller(
  producer: Producer,
  topic: string,
  { told, stopping, verdict }: { told: Told; stopping: Stopping; verdict: Verdict },
): Promise<void> {
  while (!stopping.now) {
    const id = uuidv7();
    await persistently(stopping, () =>
      producer.prepare({ id, messages: [{ topic, data: { id } }] }),
    );
    told.prepared.add(id);
    if (verdict === 'rollback') {
      await persistently(stopping, () => producer.rollback(id));
      told.rolledBack.add(id);
    } else if (verdict === 'commit') {
      told.commitAsked.add(id);
      await persistently(stopping, () => producer.commit(id));
      told.committed.add(id);
    }
  }
}

/** A batch may wait longer than the SDK does; the caller then repeats it under the same id. */
async function persistently(stopping: Stopping, work: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      const mayRepeat = isEscrowError(error) && error.code === 'BROKER_UNREACHABLE';
      if (!mayRepeat || stopping.failed) throw error;
    }
  }
}

/** All ids in that state, page by page. */
async function idsIn(broker: string, state: string): Promise<Set<string>> {
  const ids = new Set<string>();
  let after = '';
  do {
    const url = `${broker}/v1/transactions?state=${state}&limit=${PAGE}${after}`;
    const { status, body } = await call(url);
    expect(status).toBe(200);
    for (const { id } of body.transactions) ids.add(id);
    after = body.cursor === undefined ? '' : `&cursor=${body.cursor}`;
  } while (after !== '');
  return ids;
}

/** A durable classic queue: RabbitMQ itself is not what is being killed here. */
async function collect(url: string, topic: string) {
  const connection = await amqplib.connect(url);
  const channel = await connection.createChannel();
  const ids = new Set<string>();
  await channel.assertExchange(topic, 'topic', { durable: true });
  await channel.assertQueue(topic, { durable: true });
  await channel.bindQueue(topic, topic, '#');
  await channel.consume(
    topic,
    (message) => message && ids.add(String(message.properties.headers?.['escrow-transaction-id'])),
    { noAck: true },
  );
  return { ids, close: () => connection.close() };
}
