import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { createProducer } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import amqplib from 'amqplib';
import { view } from '../support/broker-client.js';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** Enough to see a mistake; ESCROW_TEST_DELAYED=100000 tries as many as are due within a minute. */
const MESSAGES = Number(process.env.ESCROW_TEST_DELAYED ?? 20_000);
/** They come due evenly over this time: 1,667 a second. */
const DUE_WITHIN_MS = MESSAGES * 0.6;
/** At once on their way into the broker. */
const SENDS_TOGETHER = 2_000;
/** From the beginning of the test to the first due time; by then all are stored. */
const STORED_WITHIN_MS = 60_000;
/** What a broker may hold more than when it had taken them all: while they wait, and as they leave. */
const RSS_GROWTH_WAITING_BYTES_MAX = 16 * 1024 * 1024;
const RSS_GROWTH_SENDING_BYTES_MAX = 128 * 1024 * 1024;
/** 0.3 s on a quiet machine; what nobody wakes up for would wait for its lease, or for ever. */
const P99_LATE_MS_MAX = 10_000;

const rssOf = ({ pid }: ChildProcess): number => {
  const [, kilobytes] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
};

/** The database, the broker and this process are on one machine, and have one clock. */
test(`${MESSAGES} messages that come due one after another leave on time, and wait in no memory`, async () => {
  const store = await freshStore('mysql');
  let process: ChildProcess | undefined;
  const broker = await startBrokerProcess({
    store: store.url,
    rabbitmq: rabbitmqUrl(),
    onLog: (_entry, child) => {
      process = child;
    },
  });
  const rss = () => (process === undefined ? 0 : rssOf(process));
  const topic = uniqueName('reminder');
  const connection = await amqplib.connect(rabbitmqUrl());
  const channel = await connection.createChannel();
  await channel.assertExchange(topic, 'topic', { durable: true });
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, topic, '#');
  const lateMs: number[] = [];
  const arrived = new Set<string>();
  await channel.consume(
    queue,
    (message) => {
      if (message === null) return;
      const { messageId, headers } = message.properties;
      if (arrived.has(messageId)) return;
      arrived.add(messageId);
      lateMs.push(Date.now() - Number(headers?.['escrow-due-at']));
    },
    { noAck: true },
  );

  const producer = createProducer({ brokers: [broker.url], producerGroup: 'accounts' });
  try {
    await producer.registerGroup({ checkUrls: [] });
    const firstDueAt = Date.now() + STORED_WITHIN_MS;
    const send = (place: number) =>
      producer.send({
        messages: [
          {
            topic,
            data: { place },
            deliverAt: firstDueAt + Math.floor((place * DUE_WITHIN_MS) / MESSAGES),
          },
        ],
      });
    let last = '';
    const startedAt = Date.now();
    for (let sent = 0; sent < MESSAGES; sent += SENDS_TOGETHER) {
      const together = Math.min(SENDS_TOGETHER, MESSAGES - sent);
      const answers = await Promise.all(
        Array.from({ length: together }, (_, number) => send(sent + number)),
      );
      last = answers.at(-1)?.id ?? last;
    }
    const storedMs = Date.now() - startedAt;
    expect(Date.now()).toBeLessThan(firstDueAt);

    // They wait now. What the broker gives back, it gives back meanwhile.
    const rssStored = rss();
    let rssWaiting = 0;
    while (Date.now() < firstDueAt - 100) {
      rssWaiting = rss();
      await pause(100);
    }
    expect(arrived.size).toBe(0);
    expect(rssWaiting).toBeLessThan(rssStored + RSS_GROWTH_WAITING_BYTES_MAX);

    let rssMax = 0;
    await until(
      'all have arrived',
      () => {
        rssMax = Math.max(rssMax, rss());
        return arrived.size >= MESSAGES;
      },
      DUE_WITHIN_MS + 30_000,
    );
    await until(
      'the last is recorded',
      async () => (await view(broker.url, last)).state === 'forwarded',
    );
    lateMs.sort((a, b) => a - b);
    const share = (part: number) => lateMs[Math.floor(part * (lateMs.length - 1))] ?? Number.NaN;
    const figures = {
      storedMs,
      late: { first: share(0), p50: share(0.5), p99: share(0.99), last: share(1) },
      rssMb: [rssStored, rssWaiting, rssMax].map((bytes) => Math.round(bytes / 1024 / 1024)),
    };
    console.info(JSON.stringify(figures));
    expect(figures.late.first).toBeGreaterThanOrEqual(0);
    expect(figures.late.p99).toBeLessThan(P99_LATE_MS_MAX);
    expect(rssMax).toBeLessThan(rssStored + RSS_GROWTH_SENDING_BYTES_MAX);
  } finally {
    await producer.close();
    await channel.deleteExchange(topic);
    await connection.close();
    await broker.stop();
    await store.remove();
  }
}, 240_000);
