import net from 'node:net';
import { freePorts } from '@escrowmq/local-servers';
import { afterEach, describe, expect, test } from '@jest/globals';
import { call, registerGroup } from '../support/broker-client.js';
import { type BrokerProcess, startBrokerProcess } from '../support/broker-process.js';
import { startMysqlErrorProxy } from '../support/mysql-error-proxy.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

async function started(starting: Promise<BrokerProcess>): Promise<BrokerProcess> {
  const broker = await starting;
  clean.push(() => broker.kill());
  return broker;
}

const prepare = (url: string) =>
  call(`${url}/v1/transactions`, 'POST', {
    producerGroup: 'accounts',
    messages: [{ topic: 'user', data: 1 }],
  });

/** Passes connections on from a port that was free. */
async function passOn(port: number, to: string): Promise<void> {
  const { port: target, hostname } = new URL(to);
  const open = new Set<net.Socket>();
  const server = net.createServer((client) => {
    const onward = net.connect(Number(target), hostname);
    for (const socket of [client, onward]) {
      open.add(socket);
      socket.on('error', () => undefined);
    }
    client.pipe(onward).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  clean.push(async () => {
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
}

describe('U22: a store that is away at the start', () => {
  test('finds a broker that lives and says what it waits for, and serves when it comes', async () => {
    const [port = 0, storePort = 0] = await freePorts(2);
    const url = `http://127.0.0.1:${port}`;
    const database = await freshMysqlDatabase();
    const store = new URL(database);
    store.port = String(storePort);
    store.hostname = '127.0.0.1';
    let waits = false;
    const starting = started(
      startBrokerProcess({
        store: store.href,
        rabbitmq: rabbitmqUrl(),
        environment: { ESCROW_LISTEN: `127.0.0.1:${port}` },
        onLog: (entry) => {
          if (entry.detail === 'waiting for the store') waits = true;
        },
      }),
    );
    await until('it says that it waits', () => waits);
    expect((await call(`${url}/livez`)).status).toBe(200);
    expect(await call(`${url}/readyz`)).toMatchObject({
      status: 503,
      body: { ready: false, checks: { store: expect.stringMatching(/waited for.*ECONNREFUSED/) } },
    });
    expect((await call(`${url}/metrics`)).body).toContain('escrow_store_reachable 0');
    expect(await prepare(url)).toMatchObject({
      status: 503,
      body: { code: 'STORE_UNAVAILABLE', retryable: true },
      headers: { 'retry-after': '1' },
    });
    await passOn(storePort, database);
    const broker = await starting;
    await registerGroup(url, 'accounts');
    expect((await prepare(url)).status).toBe(201);
    expect((await call(`${url}/readyz`)).status).toBe(200);
    const lines = broker.log.filter((entry) =>
      String(entry.event).includes('store can not be used'),
    );
    expect(lines.map(({ level }) => level)).toEqual(['warn', 'info']);
  });

  test('and refuses, ends it at once with what is wrong', async () => {
    const store = new URL(await freshMysqlDatabase());
    store.password = 'not-this-one';
    const starting = startBrokerProcess({ store: store.href, rabbitmq: rabbitmqUrl() });
    await expect(starting).rejects.toThrow(/ended with 1: .*INVALID_CONFIGURATION.*Access denied/);
  });
});

test('U22: a store in memory is warned of, loudly', async () => {
  const broker = await started(
    startBrokerProcess({ store: 'sqlite::memory:', rabbitmq: rabbitmqUrl() }),
  );
  expect(broker.log).toContainEqual(
    expect.objectContaining({
      level: 'warn',
      event: expect.stringContaining('NOTHING SURVIVES A RESTART'),
    }),
  );
});

// The rest of their class is tried in mysql-server-errors.test.ts, at the store.
test.each([1290, 3100])(
  'U10: a store that answers reads and %i to writes makes the broker not ready, and recovers',
  async (errno) => {
    const proxy = await startMysqlErrorProxy(await freshMysqlDatabase());
    clean.push(() => proxy.close());
    const broker = await started(startBrokerProcess({ store: proxy.url, rabbitmq: rabbitmqUrl() }));
    await registerGroup(broker.url, 'accounts');
    const ready = async () => (await call(`${broker.url}/readyz`)).status;
    expect(await ready()).toBe(200);

    proxy.fail(/^\s*(update|insert|delete)/, errno);
    await until('it is not ready', async () => (await ready()) === 503);
    expect((await call(`${broker.url}/metrics`)).body).toContain('escrow_store_reachable 0');
    expect(await prepare(broker.url)).toMatchObject({
      status: 503,
      body: { code: 'STORE_UNAVAILABLE', retryable: true },
    });
    expect(broker.log).toContainEqual(
      expect.objectContaining({ level: 'warn', event: 'the store can not be used' }),
    );

    proxy.heal();
    expect(await ready()).toBe(200);
    expect((await call(`${broker.url}/metrics`)).body).toContain('escrow_store_reachable 1');
    expect((await prepare(broker.url)).status).toBe(201);
    await until('the log says that it is over', () =>
      broker.log.some(({ event }) => event === 'over: the store can not be used'),
    );
  },
);
