import { setTimeout as sleep } from 'node:timers/promises';
import { startTcpProxy } from '@escrowmq/local-servers';
import { createProducer } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import { registerGroup } from '../support/broker-client.js';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl } from '../support/servers.js';

const PREPARES = 1_000;
const PER_SECOND = 200;
const WAIT_MS_MAX = 1_000;

/*
 * The broker that every producer prefers loses its store, and no other does. It answers all the same,
 * and faster than the others: whoever stays with it waits for as long as its store is away.
 */
test('X1: of 1,000 prepares none waits longer than a second when the first of three brokers loses its store', async () => {
  const store = await freshStore('mysql');
  const proxy = await startTcpProxy(store.url);
  const rabbitmq = rabbitmqUrl();
  const first = await startBrokerProcess({ store: proxy.url, rabbitmq });
  const others = [
    await startBrokerProcess({ store: store.url, rabbitmq }),
    await startBrokerProcess({ store: store.url, rabbitmq }),
  ];
  await registerGroup(first.url, 'accounts');
  const producer = createProducer({
    brokers: [first, ...others].map(({ url }) => url),
    producerGroup: 'accounts',
    prepareTimeoutMs: 10_000,
  });
  const prepare = () => producer.prepare({ messages: [{ topic: 'user', data: 1 }] });
  // Connections, and what is compiled at the first call, are not what is measured.
  await Promise.all(Array.from({ length: 50 }, prepare));

  const waitsMs: number[] = [];
  const calls: Promise<void>[] = [];
  const startedAt = performance.now();
  for (let number = 0; number < PREPARES; number += 1) {
    if (number === PREPARES / 4) await proxy.close();
    await sleep(Math.max(0, startedAt + (number * 1_000) / PER_SECOND - performance.now()));
    const calledAt = performance.now();
    calls.push(prepare().then(() => void waitsMs.push(performance.now() - calledAt)));
  }
  await Promise.all(calls);

  expect(waitsMs).toHaveLength(PREPARES);
  expect(waitsMs.filter((waitMs) => waitMs > WAIT_MS_MAX)).toEqual([]);
  await producer.close();
  for (const broker of others) expect(await broker.stop()).toBe(0);
  await first.kill();
  await store.remove();
});
