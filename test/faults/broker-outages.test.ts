import {
  type PrivateMysql,
  type PrivateRabbitmq,
  startPrivateMysql,
  startPrivateRabbitmq,
} from '@escrowmq/local-servers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const prepare = (broker: string, topic: string, data: unknown = 1) =>
  call(`${broker}/v1/transactions`, 'POST', {
    producerGroup: 'accounts',
    messages: [{ topic, data }],
  });
const commit = (broker: string, id: string) =>
  call(`${broker}/v1/transactions/${id}/commit`, 'POST');

describe('RabbitMQ away', () => {
  let rabbitmq: PrivateRabbitmq;
  beforeAll(async () => {
    rabbitmq = await startPrivateRabbitmq();
  });
  afterAll(() => rabbitmq.remove());

  test('prepares and commits go on, and are forwarded when it is back (F57)', async () => {
    const store = await freshStore('sqlite');
    const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
    const topic = uniqueName('user');
    await registerGroup(broker.url, 'accounts');
    const early = await prepare(broker.url, topic);

    await rabbitmq.stop();
    await until('the broker has noticed', async () => {
      const ready = await call(`${broker.url}/readyz`);
      return ready.status === 200 && ready.body.degraded === true;
    });
    const late = await prepare(broker.url, topic);
    for (const { body } of [early, late]) {
      expect(await commit(broker.url, body.id)).toMatchObject({ status: 200 });
      expect((await view(broker.url, body.id)).state).toBe('committed');
    }

    await rabbitmq.restart();
    const queue = await bindQueue(rabbitmq.url, [{ topic, routingKey: '#' }]);
    await until('both are forwarded', () => queue.received.length >= 2, 30_000);
    await until(
      'both are marked',
      async () => (await view(broker.url, late.body.id)).state === 'forwarded',
    );
    expect(queue.messageIds().sort()).toEqual([`${early.body.id}-0`, `${late.body.id}-0`].sort());
    await queue.close();
    expect(await broker.stop()).toBe(0);
    await store.remove();
  });

  test('a broker may start before RabbitMQ does', async () => {
    await rabbitmq.stop();
    const store = await freshStore('sqlite');
    const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
    await registerGroup(broker.url, 'accounts');
    const topic = uniqueName('user');
    const { body } = await prepare(broker.url, topic);
    await commit(broker.url, body.id);
    await rabbitmq.restart();
    const queue = await bindQueue(rabbitmq.url, [{ topic, routingKey: '#' }]);
    await until('it is forwarded', () => queue.received.length === 1, 30_000);
    await queue.close();
    await broker.stop();
    await store.remove();
  });
});

describe('the store away', () => {
  let mysql: PrivateMysql;
  beforeAll(async () => {
    mysql = await startPrivateMysql();
  });
  afterAll(() => mysql.remove());

  test('calls are refused with 503, and taken again when it is back, without a restart (F46)', async () => {
    const broker = await startBrokerProcess({ store: mysql.url, rabbitmq: rabbitmqUrl() });
    await registerGroup(broker.url, 'accounts');
    const topic = uniqueName('user');
    const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
    const { body } = await prepare(broker.url, topic);

    await mysql.stop();
    const refused = await commit(broker.url, body.id);
    expect(refused).toMatchObject({
      status: 503,
      body: { code: 'STORE_UNAVAILABLE', retryable: true },
    });
    expect(refused.headers['retry-after']).toBeDefined();
    expect(JSON.stringify(refused.body)).not.toContain('escrow:escrow@');
    // A write of the last second may still speak for the store.
    const ready = async () => (await call(`${broker.url}/readyz`)).status;
    await until('it is not ready', async () => (await ready()) === 503);
    expect(await call(`${broker.url}/livez`)).toMatchObject({ status: 200 });

    await mysql.restart();
    await until(
      'the commit is taken',
      async () => (await commit(broker.url, body.id)).status === 200,
    );
    await until('it is forwarded', () => queue.received.length === 1);
    expect(await ready()).toBe(200);
    await queue.close();
    expect(await broker.stop()).toBe(0);
  });
});

describe('start and end of the process', () => {
  test('without ESCROW_RABBITMQ one line says what to set', async () => {
    await expect(startBrokerProcess({ store: 'sqlite:x.db', rabbitmq: '' })).rejects.toThrow(
      /ended with 2: ESCROW_RABBITMQ is not set: give the URL of a RabbitMQ[^\n]*\n/,
    );
  });

  test('SIGTERM ends a broker that still waits for its store', async () => {
    const starting = startBrokerProcess({
      store: 'mysql://escrow:escrow@127.0.0.1:1/escrow',
      rabbitmq: rabbitmqUrl(),
      onLog: (entry, child) => {
        if (entry.detail === 'waiting for the store') child.kill('SIGTERM');
      },
    });
    await expect(starting).rejects.toThrow(/the broker ended with 0/);
  });

  test('listening for others without API keys is refused', async () => {
    const environment = { ESCROW_LISTEN: '0.0.0.0:0' };
    await expect(
      startBrokerProcess({ store: 'sqlite:x.db', rabbitmq: rabbitmqUrl(), environment }),
    ).rejects.toThrow(/without API keys the broker listens on loopback only/);
  });

  test('housekeeping runs by its cron expression and says what there is', async () => {
    const store = await freshStore('sqlite');
    const environment = { ESCROW_HOUSEKEEPING_CRON: '* * * * * *' };
    const broker = await startBrokerProcess({
      store: store.url,
      rabbitmq: rabbitmqUrl(),
      environment,
    });
    await registerGroup(broker.url, 'accounts');
    await prepare(broker.url, uniqueName('user'));
    await until('the statistics show the transaction', () =>
      broker.log.some((entry) => entry.event === 'housekeeping' && entry.prepared === 1),
    );
    expect(await broker.stop()).toBe(0);
    await store.remove();
  });

  test('a cron expression that is none is refused with one that is right', async () => {
    const store = await freshStore('sqlite');
    const environment = { ESCROW_HOUSEKEEPING_CRON: 'every now and then' };
    await expect(
      startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl(), environment }),
    ).rejects.toThrow(/ESCROW_HOUSEKEEPING_CRON is no cron expression.*\*\/5/);
    await store.remove();
  });

  test('a second broker on the same SQLite file is refused with what to do', async () => {
    const store = await freshStore('sqlite');
    const first = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    await expect(startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() })).rejects.toThrow(
      /another process has it open.*mysql:/,
    );
    await first.stop();
    await store.remove();
  });

  test.each(['sqlite', 'mysql'] as const)(
    'SIGTERM on %s ends waits, answers what is in flight and exits with 0 (F79)',
    async (kind) => {
      const store = await freshStore(kind);
      const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
      await registerGroup(broker.url, 'accounts');
      const key = uniqueName('phone');
      const { body } = await call(`${broker.url}/v1/transactions`, 'POST', {
        producerGroup: 'accounts',
        businessKeys: [key],
        messages: [{ topic: uniqueName('user'), data: 1 }],
      });
      const waiting = call(`${broker.url}/v1/business-keys/${key}?waitMs=30000`);
      // The wait has begun once the broker answers what came after it.
      await call(`${broker.url}/livez`);
      const startedAt = performance.now();
      const [code, answer] = await Promise.all([broker.stop(), waiting]);
      expect(code).toBe(0);
      // Not with the wait, which had half a minute left.
      expect(performance.now() - startedAt).toBeLessThan(20_000);
      expect([200, 503]).toContain(answer.status);
      if (answer.status === 200) expect(answer.body.transactions[0].id).toBe(body.id);
      await store.remove();
    },
  );
});
