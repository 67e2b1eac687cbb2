import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startPrivateMysql } from '@escrowmq/local-servers';
import {
  createCheckHandler,
  createCompensationHandler,
  ensureCompensationTable,
  nodeCheckListener,
  nodeCompensationListener,
} from '@escrowmq/producer';
import { afterEach, expect, test } from '@jest/globals';
import type { ConsumeMessage } from 'amqplib';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { Webhook } from 'standardwebhooks';
import { uuidv7 } from 'uuidv7';
import { bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, startBrokerProcess } from '../support/broker-process.js';
import { decide, startCheckEndpoint } from '../support/check-endpoint.js';
import { describeUnless } from '../support/describe-unless.js';
import { type FakeTime, fakeTime, fakeTimeProblem } from '../support/fake-time.js';
import { startProducerDatabase } from '../support/producer-database.js';
import { onChannel } from '../support/rabbit.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';
import { type ReceivedPost, startWebhookEndpoint } from '../support/webhook-endpoint.js';

const CHECK_AFTER_MS = 1_500;
/** A loop looks every quarter of a second; the rest is for a machine under load. */
const LATE_MS_MAX = 8_000;

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

function timeOf(offset: string): FakeTime {
  const time = fakeTime(offset);
  clean.push(() => time.remove());
  return time;
}

async function start(store: string, environment?: Record<string, string>): Promise<BrokerProcess> {
  const settings = { store, rabbitmq: rabbitmqUrl(), ...(environment && { environment }) };
  const broker = await startBrokerProcess(settings);
  clean.push(() => broker.kill());
  return broker;
}

async function openEnds() {
  const topic = uniqueName('user');
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  const endpoint = await startCheckEndpoint();
  clean.push(
    () => queue.close(),
    () => endpoint.close(),
  );
  endpoint.answer = decide('commit');
  const askedAt = new Map<string, number>();
  const answer = endpoint.answer;
  endpoint.answer = (check, response, request) => {
    if (!askedAt.has(check.id)) askedAt.set(check.id, performance.now());
    answer(check, response, request);
  };
  return { topic, queue, endpoint, askedAt };
}

async function prepare(broker: BrokerProcess, topic: string): Promise<string> {
  const answer = await call(`${broker.url}/v1/transactions`, 'POST', {
    id: uuidv7(),
    producerGroup: 'accounts',
    checkAfterMs: CHECK_AFTER_MS,
    messages: [{ topic, data: 1 }],
  });
  expect(answer).toMatchObject({ status: 201 });
  return String(answer.body.id);
}

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  clean.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

/** A service with the SDK at the broker. Its clock is right, and it compares signed times with it. */
async function startService(broker: string) {
  const database = await startProducerDatabase();
  clean.push(() => database.close());
  const pool = database.pool();
  await ensureCompensationTable(pool);
  const compensated: string[] = [];
  let signingSecret = '';
  const options = { signingSecret: () => signingSecret, database: pool };
  const compensate = async (_tx: unknown, { id }: { id: string }) => void compensated.push(id);
  const { body } = await call(`${broker}/v1/producer-groups/accounts`, 'PUT', {
    checkUrls: [await serve(nodeCheckListener(createCheckHandler(options)))],
    compensationUrls: [
      await serve(nodeCompensationListener(createCompensationHandler({ ...options, compensate }))),
    ],
    checkPolicy: { firstDelayMs: 0, delayMsMax: 200 },
  });
  signingSecret = String(body.signingSecret);
  return {
    compensated,
    /** What a local transaction leaves that has committed. */
    commitLocally: (id: string) =>
      database.observer.query(
        "insert into escrow_barrier values (unhex(replace(?, '-', '')), 'commit', utc_timestamp(3), null)",
        [id],
      ),
  };
}

/** Its consumer group has failed for good. */
async function giveUp({ properties }: ConsumeMessage): Promise<void> {
  const { messageId, replyTo } = properties;
  const receipts = [{ messageId, consumerGroup: 'stock', kind: 'failed' }];
  await onChannel(rabbitmqUrl(), async (channel) => {
    channel.sendToQueue(String(replyTo), Buffer.from(JSON.stringify({ receipts })));
    await channel.waitForConfirms();
  });
}

describeUnless(await fakeTimeProblem())('clocks that are wrong', () => {
  test('of instances, an hour ahead and two behind, decide nothing: checks come when the store says (F42)', async () => {
    const store = await freshMysqlDatabase();
    const ahead = timeOf('+3600');
    const brokers = [
      await start(store, ahead.environment),
      await start(store, timeOf('-7200').environment),
    ];
    const { topic, queue, endpoint, askedAt } = await openEnds();
    const [first] = brokers;
    await registerGroup(String(first?.url), 'accounts', [endpoint.url], { firstDelayMs: 500 });

    const preparedAt = new Map<string, number>();
    const round = async () => {
      for (const broker of brokers) {
        for (let n = 0; n < 5; n += 1) {
          const id = await prepare(broker, topic);
          preparedAt.set(id, performance.now());
        }
        const { body } = await call(`${broker.url}/v1/messages`, 'POST', {
          producerGroup: 'accounts',
          messages: [{ topic, data: 2 }],
        });
        expect(body).toMatchObject({ state: 'committed' });
      }
    };
    await round();
    // What an hour ahead was comes back to two hours behind, in the middle of it.
    ahead.set('-7200');
    await round();
    await until('everything has arrived', () => queue.received.length >= 24, 30_000);
    for (const [id, at] of preparedAt) {
      const afterMs = Number(askedAt.get(id)) - at;
      // Prepared a little before its answer was here.
      expect(afterMs).toBeGreaterThan(CHECK_AFTER_MS - 250);
      expect(afterMs).toBeLessThan(CHECK_AFTER_MS + LATE_MS_MAX);
    }
    for (const { preparedAt: told } of endpoint.asked) {
      expect(Math.abs(Date.now() - told)).toBeLessThan(60_000);
    }
    for (const broker of brokers) expect(await broker.stop()).toBe(0);
  });

  test.each(['+600', '-600'])(
    'of an instance, %s s off, cost no check, compensation or webhook: it signs by the clock of the store (F42)',
    async (offset) => {
      const store = await freshMysqlDatabase();
      const { url } = await start(store, timeOf(offset).environment);
      const service = await startService(url);
      const topic = uniqueName('user');
      const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
      const thirdParty = await startWebhookEndpoint();
      const { body: webhook } = await call(`${url}/v1/webhooks/billing`, 'PUT', {
        topic,
        url: thirdParty.url,
      });
      clean.push(
        () => queue.close(),
        () => thirdParty.close(),
        () => call(`${url}/v1/webhooks/billing`, 'DELETE'),
      );
      const id = uuidv7();
      await service.commitLocally(id);
      await call(`${url}/v1/transactions`, 'POST', {
        id,
        producerGroup: 'accounts',
        expects: ['stock'],
        messages: [{ topic, data: 1, compensate: true }],
      });
      await until('its check is answered', () => queue.received.length > 0, 30_000);
      await giveUp(queue.received[0] as ConsumeMessage);
      await until('it is compensated', () => service.compensated.length > 0, 30_000);
      expect(service.compensated).toEqual([id]);
      await until(
        'the webhook is called',
        async () => {
          if (thirdParty.received.length > 0) return true;
          await call(`${url}/v1/messages`, 'POST', {
            producerGroup: 'accounts',
            messages: [{ topic, data: 1 }],
          });
          return false;
        },
        30_000,
      );
      const { headers, body } = thirdParty.received[0] as ReceivedPost;
      const verifier = new Webhook(String(webhook.signingSecret));
      expect(verifier.verify(body, headers as Record<string, string>)).toBe(1);
    },
  );

  test('of the store, jumping ahead and back, bring checks early or late, and no wrong decision (F43)', async () => {
    const time = timeOf('+0');
    // The server takes its environment from this process.
    Object.assign(process.env, time.environment);
    const mysql = await startPrivateMysql().finally(() => {
      for (const name of Object.keys(time.environment)) delete process.env[name];
    });
    clean.push(() => mysql.remove());
    const looking = await createConnection(mysql.url);
    clean.push(() => looking.end());
    const storeAheadMs = async () => {
      const sql = 'select unix_timestamp(now(3)) * 1000 as now';
      const [rows] = await looking.query<RowDataPacket[]>(sql);
      return Number(rows[0]?.now) - Date.now();
    };
    const broker = await start(mysql.url);
    const { topic, queue, endpoint } = await openEnds();
    await registerGroup(broker.url, 'accounts', [endpoint.url], { firstDelayMs: 500 });
    const kept: string[] = [];
    const dropped: string[] = [];
    for (const offset of ['+7200', '-3600', '+0']) {
      for (let n = 0; n < 3; n += 1) {
        kept.push(await prepare(broker, topic));
        const id = await prepare(broker, topic);
        await call(`${broker.url}/v1/transactions/${id}/rollback`, 'POST');
        dropped.push(id);
        const { body } = await call(`${broker.url}/v1/messages`, 'POST', {
          producerGroup: 'accounts',
          messages: [{ topic, data: 2 }],
        });
        kept.push(String(body.id));
      }
      time.set(offset);
      expect(Math.abs((await storeAheadMs()) - Number(offset) * 1000)).toBeLessThan(5_000);
    }
    // What was due by a clock that ran two hours ahead is due in two hours; it comes with the clock.
    time.set('+14400');
    await until(
      'everything has arrived',
      () => new Set(queue.messageIds()).size >= kept.length,
      30_000,
    );
    expect(new Set(queue.messageIds())).toEqual(new Set(kept.map((id) => `${id}-0`)));
    for (const id of dropped) expect((await view(broker.url, id)).state).toBe('rolledBack');
    expect(await broker.stop()).toBe(0);
  });
});
