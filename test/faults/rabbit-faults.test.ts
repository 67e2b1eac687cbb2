import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import type { PublishOutcome } from '../../broker/src/domain/ports.js';
import {
  openRabbit,
  type Rabbit,
  type RabbitOptions,
} from '../../broker/src/rabbit/open-rabbit.js';
import { onChannel, outgoing, recordingObserver } from '../support/rabbit.js';
import { uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** RabbitMQ takes 5 to 8 s to start, and the next attempt to connect may be 5 s away. */
const RESTART_LIMIT_MS = 60_000;

const MESSAGE_BYTES_MAX = 100_000;

let server: PrivateRabbitmq;
let rabbit: Rabbit | undefined;
let observer: ReturnType<typeof recordingObserver>;

beforeAll(async () => {
  server = await startPrivateRabbitmq({ conf: [`max_message_size = ${MESSAGE_BYTES_MAX}`] });
});
afterAll(() => server.remove());

afterEach(async () => {
  await rabbit?.close();
  rabbit = undefined;
});

function open(options: Partial<RabbitOptions> = {}): Rabbit {
  observer = recordingObserver();
  rabbit = openRabbit({ url: server.url, observer, ...options });
  return rabbit;
}

/** Classic and durable: RabbitMQ 3.10 forgets a young quorum queue when it is killed. */
async function topicWithQueue(): Promise<string> {
  const topic = uniqueName('topic');
  await onChannel(server.url, async (channel) => {
    await channel.assertExchange(topic, 'topic', { durable: true });
    await channel.assertQueue(`${topic}-queue`, { durable: true });
    await channel.bindQueue(`${topic}-queue`, topic, '#');
  });
  return topic;
}

test('a blocked connection is told, takes nothing, and goes on when it is unblocked (F56)', async () => {
  const topic = await topicWithQueue();
  // On a busy machine rabbitmqctl takes longer than a publish may.
  const { publish } = open({ publishLimitMs: 120_000 });
  let readyCalls = 0;
  rabbit!.onReady(() => readyCalls++);
  await until('there is room', () => rabbit!.room > 0);
  expect(await publish(outgoing(topic, 'before'))).toEqual({ kind: 'confirmed' });

  await server.ctl('set_vm_memory_high_watermark', '0.0000001');
  const during = publish(outgoing(topic, 'during'));
  await until('the connection is blocked', () => rabbit!.status === 'blocked');
  expect(rabbit!.room).toBe(0);
  expect(await publish(outgoing(topic, 'refused'))).toEqual({
    kind: 'unconfirmed',
    detail: 'RabbitMQ is blocked',
  });
  expect(observer.told.some((line) => line.includes('takes no messages'))).toBe(true);
  expect(readyCalls).toBe(1);

  await server.ctl('set_vm_memory_high_watermark', '0.8');
  await until('publishing is possible again', () => readyCalls === 2);
  expect(rabbit!.status).toBe('connected');
  expect(await during).toEqual({ kind: 'confirmed' });
  expect(await publish(outgoing(topic, 'after'))).toEqual({ kind: 'confirmed' });
});

test('publishes that outlive their limit while blocked are unconfirmed, and later ones work', async () => {
  const topic = await topicWithQueue();
  const { publish } = open({ publishLimitMs: 500 });
  await until('there is room', () => rabbit!.room > 0);
  await publish(outgoing(topic, 'before'));
  await server.ctl('set_vm_memory_high_watermark', '0.0000001');
  expect((await publish(outgoing(topic, 'during'))).kind).toBe('unconfirmed');
  expect(rabbit!.room).toBe(0);
  await server.ctl('set_vm_memory_high_watermark', '0.8');
  await until('there is room again', () => rabbit!.room > 0);
  expect(await publish(outgoing(topic, 'during'))).toEqual({ kind: 'confirmed' });
});

test('closing a blocked connection is bounded', async () => {
  const topic = await topicWithQueue();
  const { publish, close } = open({ closeLimitMs: 300 });
  await until('there is room', () => rabbit!.room > 0);
  await publish(outgoing(topic, 'before'));
  await server.ctl('set_vm_memory_high_watermark', '0.0000001');
  const during = publish(outgoing(topic, 'during'));
  await until('the connection is blocked', () => rabbit!.status === 'blocked');
  const startedAt = performance.now();
  await close();
  expect(performance.now() - startedAt).toBeLessThan(2_000);
  expect((await during).kind).toBe('unconfirmed');
  await server.ctl('set_vm_memory_high_watermark', '0.8');
});

test('a user who may not declare or write a topic is refused that topic only', async () => {
  await server.ctl('add_user', 'limited', 'pass word/7');
  await server.ctl('set_permissions', 'limited', '^(open|unwritable).*', '^(open|given).*', '.*');
  const url = new URL(server.url);
  url.username = 'limited';
  url.password = encodeURIComponent('pass word/7');
  const { publish } = open({ url: url.href });
  await until('there is room', () => rabbit!.room > 0);

  const [undeclarable, allowed] = await Promise.all([
    publish(outgoing('undeclarable', 'm-1')),
    publish(outgoing('open', 'm-2')),
  ]);
  expect(undeclarable).toMatchObject({ kind: 'refused', detail: expect.stringContaining('403') });
  expect(allowed.kind).toBe('returned');

  // What somebody else has declared need not be declared by this user.
  await onChannel(server.url, (channel) => channel.assertExchange('given', 'topic'));
  expect((await publish(outgoing('given', 'm-5'))).kind).toBe('returned');

  // Only the publish itself shows that this one can't be written: it costs the channel, once.
  expect((await publish(outgoing('unwritable', 'm-3'))).kind).toBe('refused');
  await until('there is room again', () => rabbit!.room > 0);
  expect((await publish(outgoing('unwritable', 'm-3'))).kind).toBe('refused');
  expect((await publish(outgoing('open', 'm-4'))).kind).toBe('returned');
});

test('U06: of a topic with topic permissions only what they refuse fails, and nobody else spends an attempt', async () => {
  const topic = await topicWithQueue();
  await server.ctl('add_user', 'narrow', 'narrow');
  await server.ctl('set_permissions', 'narrow', '.*', '.*', '.*');
  await server.ctl('set_topic_permissions', 'narrow', topic, '^allowed', '.*');
  const url = new URL(server.url);
  url.username = 'narrow';
  url.password = 'narrow';
  const { publish } = open({ url: url.href });
  const other = await topicWithQueue();
  await until('there is room', () => rabbit!.room > 0);

  const tries = new Map<string, string[]>();
  /** As the engine does: what was interrupted goes again, a refused one is not repeated here. */
  async function deliver(id: string, to: string, routingKey: string): Promise<void> {
    const kinds: string[] = [];
    tries.set(id, kinds);
    do {
      await until('there is room', () => rabbit!.room > 0);
      const { kind } = await publish(outgoing(to, id, { routingKey }));
      kinds.push(kind);
    } while (kinds.at(-1) === 'interrupted' && kinds.length < 100);
  }
  const work: Promise<void>[] = [];
  for (let n = 0; n < 100; n++) {
    work.push(deliver(`ok-${n}`, topic, `allowed.${n % 20}`));
    work.push(deliver(`other-${n}`, other, 'forbidden.elsewhere'));
    if (n % 10 === 0) work.push(deliver(`bad-${n}`, topic, `forbidden.${n}`));
  }
  await Promise.all(work);

  for (const [id, kinds] of tries) {
    expect([id, kinds.at(-1)]).toEqual([id, id.startsWith('bad') ? 'refused' : 'confirmed']);
    expect(kinds.slice(0, -1).every((kind) => kind === 'interrupted')).toBe(true);
  }
  // The common channel closed once, for all 10 keys that are refused: the rest went each alone.
  const mostTries = Math.max(...[...tries.values()].map(({ length }) => length));
  expect(mostTries).toBeLessThanOrEqual(4);
  expect(await publish(outgoing(topic, 'bad-0', { routingKey: 'forbidden.0' }))).toEqual({
    kind: 'refused',
    detail: expect.stringMatching(/topic permissions .*'forbidden\.0' .*set_topic_permissions/),
  });
});

test('a message larger than RabbitMQ takes costs the channel once, and is refused from then on', async () => {
  const topic = await topicWithQueue();
  const { publish } = open();
  await until('there is room', () => rabbit!.room > 0);
  const body = Buffer.alloc(MESSAGE_BYTES_MAX + 1, 'x');
  const outcomes = await Promise.all([
    publish(outgoing(topic, 'large', { body })),
    publish(outgoing(topic, 'small')),
  ]);
  expect(outcomes.map(({ kind }) => kind)).toEqual(['refused', 'interrupted']);
  await until('there is room again', () => rabbit!.room > 0);
  expect(await publish(outgoing(topic, 'small'))).toEqual({ kind: 'confirmed' });
  expect(await publish(outgoing(topic, 'large', { body }))).toMatchObject({
    kind: 'refused',
    detail: expect.stringContaining("RabbitMQ's max_message_size is 100000"),
  });
  const largest = outgoing(topic, 'largest', { body: Buffer.alloc(MESSAGE_BYTES_MAX, 'x') });
  expect(await publish(largest)).toEqual({ kind: 'confirmed' });
});

test('a wrong password is told without the password, and tried again', async () => {
  const url = new URL(server.url);
  url.password = 'hunter-two%2F2';
  open({ url: url.href });
  await until('two attempts have failed', () => observer.told.length >= 2);
  expect(rabbit!.status).toBe('disconnected');
  expect(observer.told.join()).toContain('refused the login of user "guest"');
  expect(observer.told.join()).not.toMatch(/hunter-two/);
});

test('U15: a password beyond ASCII logs in; a missing permission on the virtual host is named', async () => {
  await server.ctl('add_user', 'umlaut', 'pässwörd');
  const url = new URL(server.url);
  url.username = 'umlaut';
  url.password = encodeURIComponent('pässwörd');
  open({ url: url.href });
  await until('it is named', () => rabbit!.problems.connection?.includes('permissions') ?? false);
  expect(rabbit!.problems.connection).toContain('refuses user "umlaut" the virtual host "/"');
  await server.ctl('set_permissions', 'umlaut', '.*', '.*', '.*');
  await until('it is connected by itself', () => rabbit!.status === 'connected', 20_000);
  expect(rabbit!.problems).toEqual({});
});

test('kill -9 in the middle of a burst: every outcome is known, and publishing comes back (F57)', async () => {
  const topic = await topicWithQueue();
  const { publish } = open();
  await until('there is room', () => rabbit!.room > 0);
  const outcomes: PublishOutcome[] = [];
  const confirmed: string[] = [];
  let sent = 0;
  async function burst() {
    while (rabbit!.room > 0) {
      const id = `m-${sent++}`;
      const outcome = await publish(outgoing(topic, id));
      outcomes.push(outcome);
      if (outcome.kind === 'confirmed') confirmed.push(id);
    }
  }
  const bursts = Array.from({ length: 500 }, () => burst());
  await until('the burst is on its way', () => confirmed.length > 2_000);
  await server.kill();
  await Promise.all(bursts);
  expect(outcomes).toHaveLength(sent);
  const kinds = new Set(outcomes.map(({ kind }) => kind));
  expect([...kinds].sort()).toEqual(['confirmed', 'unconfirmed']);

  await server.restart();
  await until('there is room again', () => rabbit!.room > 0, RESTART_LIMIT_MS);
  expect(await publish(outgoing(topic, 'after'))).toEqual({ kind: 'confirmed' });
  const kept = await onChannel(server.url, (channel) => channel.checkQueue(`${topic}-queue`));
  expect(kept.messageCount).toBeGreaterThan(confirmed.length);
});

test('receipts are consumed again after RabbitMQ restarted', async () => {
  const queue = uniqueName('receipts');
  const seen: string[] = [];
  open().consumeReceipts(queue, async (receipts) => {
    seen.push(...receipts.map(({ messageId }) => messageId));
  });
  // False as well while the server, or the queue, is not there.
  const hasConsumer = () =>
    onChannel(server.url, (channel) => channel.checkQueue(queue)).then(
      ({ consumerCount }) => consumerCount === 1,
      () => false,
    );
  const tell = (messageId: string) =>
    onChannel(server.url, async (channel) => {
      const receipts = [{ messageId, consumerGroup: 'phone-index', kind: 'consumed' }];
      channel.sendToQueue(queue, Buffer.from(JSON.stringify({ receipts })));
      await channel.waitForConfirms();
    });
  await until('the queue has a consumer', hasConsumer);
  await tell('before');
  await until('a receipt has come', () => seen.includes('before'));
  await server.restart();
  await until('the queue has a consumer again', hasConsumer, RESTART_LIMIT_MS);
  await tell('after');
  await until('another receipt has come', () => seen.includes('after'));
});

test('RabbitMQ may come later than the broker', async () => {
  const topic = await topicWithQueue();
  await server.stop();
  const { publish } = open();
  let readyCalls = 0;
  rabbit!.onReady(() => readyCalls++);
  await until('connecting has failed twice', () => observer.told.length >= 2);
  expect(rabbit!.status).toBe('disconnected');
  expect(rabbit!.room).toBe(0);
  expect((await publish(outgoing(topic, 'early'))).kind).toBe('unconfirmed');

  await server.restart();
  await until('publishing is possible', () => readyCalls === 1, RESTART_LIMIT_MS);
  expect(await publish(outgoing(topic, 'later'))).toEqual({ kind: 'confirmed' });
});

test('closing ends the attempts to connect', async () => {
  const { close } = open({ url: 'amqp://127.0.0.1:1' });
  await until('connecting has failed', () => observer.told.length >= 1);
  await close();
  expect(rabbit!.status).toBe('disconnected');
});
