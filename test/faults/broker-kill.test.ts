import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import amqplib from 'amqplib';
import { uuidv7 } from 'uuidv7';
import { call, registerGroup, view } from '../support/broker-client.js';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { until } from '../support/until.js';

const CALLERS = 64;
const KILLS = 20;
/** Enough for some hundred transactions between two kills, and some in every phase. */
const RUNS_MS_MIN = 300;
const RUNS_MS_SPREAD = 700;

/** What callers were told, against what is there in the end. */
interface Told {
  prepared: Set<string>;
  committed: Set<string>;
  rolledBack: Set<string>;
}

describe('SIGKILL of the broker with 64 callers in flight', () => {
  let rabbitmq: PrivateRabbitmq;
  beforeAll(async () => {
    rabbitmq = await startPrivateRabbitmq();
  });
  afterAll(() => rabbitmq.remove());

  test.each(['sqlite', 'mysql'] as const)(
    `20 times on %s: every acknowledged prepare and commit is there, and forwarded`,
    async (kind) => {
      const store = await freshStore(kind);
      const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
      await registerGroup(broker.url, 'accounts', [], { firstDelayMs: 60_000 });
      const topic = `kill-${kind}`;
      const arrived = await collect(rabbitmq.url, topic);
      const told: Told = { prepared: new Set(), committed: new Set(), rolledBack: new Set() };
      const stopping = { now: false };
      const callers = Array.from({ length: CALLERS }, (_, n) =>
        caller(broker.url, topic, { told, stopping, rollsBack: n % 8 === 0 }),
      );

      for (let kill = 0; kill < KILLS; kill++) {
        const before = told.committed.size;
        await new Promise((resolve) =>
          setTimeout(resolve, RUNS_MS_MIN + Math.random() * RUNS_MS_SPREAD),
        );
        await until('some were committed since the last kill', () => told.committed.size > before);
        await broker.kill();
        await broker.start();
      }
      stopping.now = true;
      await Promise.all(callers);

      await until(
        'every acknowledged commit has arrived',
        () => [...told.committed].every((id) => arrived.ids.has(id)),
        60_000,
      );
      for (const id of told.prepared) {
        const { state } = await view(broker.url, id);
        if (told.committed.has(id)) expect(['committed', 'forwarded']).toContain(state);
        else if (told.rolledBack.has(id)) expect(state).toBe('rolledBack');
        else expect(['prepared', 'committed', 'forwarded', 'rolledBack']).toContain(state);
      }
      for (const id of told.rolledBack) expect(arrived.ids.has(id)).toBe(false);
      await until(
        'nothing is left to forward',
        async () => {
          const open = await call(`${broker.url}/v1/transactions?state=committed`);
          return open.body.transactions.length === 0;
        },
        60_000,
      );

      await arrived.close();
      expect(await broker.stop()).toBe(0);
      await store.remove();
    },
    240_000,
  );
});

async function caller(
  broker: string,
  topic: string,
  { told, stopping, rollsBack }: { told: Told; stopping: { now: boolean }; rollsBack: boolean },
): Promise<void> {
  /** As the SDK does: the same call with the same id until somebody answers. */
  const persistently = async (path: string, body?: object) => {
    for (;;) {
      try {
        const answer = await call(`${broker}${path}`, 'POST', body);
        if (answer.status < 500) return answer;
      } catch {
        // The broker is dead or starting.
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  while (!stopping.now) {
    const id = uuidv7();
    const prepared = await persistently('/v1/transactions', {
      id,
      producerGroup: 'accounts',
      messages: [{ topic, data: { id } }],
    });
    expect([200, 201]).toContain(prepared.status);
    told.prepared.add(id);
    const verdict = rollsBack ? 'rollback' : 'commit';
    const decided = await persistently(`/v1/transactions/${id}/${verdict}`);
    expect(decided.status).toBe(200);
    (rollsBack ? told.rolledBack : told.committed).add(id);
  }
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
