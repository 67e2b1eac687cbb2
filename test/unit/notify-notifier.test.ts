import type { Consumer, ConsumerEvent, SubscribeOptions } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import type { Webhook } from '../../broker/src/domain/webhook.js';
import type { Unbinding } from '../../broker/src/notify/bindings.js';
import { createNotifier } from '../../broker/src/notify/notifier.js';
import { NOW, recordingObserver } from '../support/engine-fakes.js';
import { deferred } from '../support/ready.js';
import { delivered, storedWebhook } from '../support/webhook-fakes.js';

const QUEUE = 'escrow:orders:billing';

interface FakeSubscription {
  options: SubscribeOptions;
  handler: Parameters<Consumer['subscribe']>[1];
  closed: boolean;
}

/** A notifier on a store, a consumer and an unbinding that tests hold in their hands. */
function notifier(stored: Webhook[]) {
  const observer = recordingObserver();
  const subscriptions: FakeSubscription[] = [];
  const unbound: Unbinding[] = [];
  const world = {
    stored,
    connected: true,
    nowMs: 0,
    subscribing: Promise.resolve(),
    unbinding: Promise.resolve(),
    disabling: async () => true,
    wakes: 0,
    hear: (_event: ConsumerEvent): void => {},
  };
  const consumer: Pick<Consumer, 'subscribe' | 'close'> = {
    async subscribe(options: unknown, handler: unknown) {
      await world.subscribing;
      const subscription = { options, handler, closed: false } as FakeSubscription;
      subscriptions.push(subscription);
      return {
        close: async () => {
          subscription.closed = true;
        },
      } as Awaited<ReturnType<Consumer['subscribe']>>;
    },
    async close() {
      for (const subscription of subscriptions) subscription.closed = true;
    },
  };
  const made = createNotifier<'closed'>({
    openConsumer: (logger) => {
      world.hear = logger;
      return consumer as Consumer;
    },
    store: {
      listWebhooks: async () => world.stored,
      disableWebhook: async () => world.disabling(),
    },
    post: async () => ({ kind: 'gone' }),
    unbind: async (unbinding) => {
      await world.unbinding;
      unbound.push(unbinding);
    },
    breaker: {
      closed: 'closed',
      shutUntil: () => undefined,
      begin: (breaker) => breaker,
      failed: (breaker) => breaker,
    },
    rabbitConnected: () => world.connected,
    wake: () => {
      world.wakes += 1;
    },
    storeNow: () => NOW,
    now: () => world.nowMs,
    observer,
  });
  /** A pass, and what it has set going. */
  async function pass(): Promise<void> {
    await made.reconcileOnce();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const open = () => subscriptions.filter(({ closed }) => !closed).map(({ options }) => options);
  return { ...made, pass, open, subscriptions, unbound, world, observer };
}

test('a subscription takes the settings of its webhook', async () => {
  const { pass, open } = notifier([
    storedWebhook({
      settings: {
        routingKeys: ['paid'],
        concurrency: 7,
        timeoutMs: 2_000,
        retry: { delaysMs: [1, 2] },
      },
    }),
  ]);
  await pass();
  await pass();
  expect(open()).toEqual([
    expect.objectContaining({
      topic: 'orders',
      group: 'billing',
      routingKeys: ['paid'],
      concurrency: 7,
      retryDelaysMs: [1, 2],
      retryJitter: 0.2,
    }),
  ]);
  // Nothing ends a handler before its gate and its call have ended by themselves.
  expect(open()[0]?.handlerTimeoutMs).toBeGreaterThan(75_000 + 2_000);
});

test('other settings end it and begin another', async () => {
  const { pass, open, subscriptions, world } = notifier([storedWebhook()]);
  await pass();
  world.stored = [storedWebhook({ settings: { concurrency: 9 } })];
  await pass();
  expect(open()).toEqual([]);
  expect(world.wakes).toBe(1);
  await pass();
  expect(open()).toMatchObject([{ concurrency: 9 }]);
  expect(subscriptions).toHaveLength(2);
});

test('while RabbitMQ is away nothing is begun, and what runs stays', async () => {
  const { pass, open, world } = notifier([storedWebhook()]);
  world.connected = false;
  await pass();
  expect(open()).toEqual([]);
  world.connected = true;
  await pass();
  world.connected = false;
  await pass();
  expect(open()).toHaveLength(1);
});

test('one that could not be begun is begun by the next pass', async () => {
  const { pass, open, world, observer } = notifier([storedWebhook()]);
  world.subscribing = Promise.reject(new Error('no route'));
  await pass();
  expect(observer.failures).toMatchObject([
    ['starting the webhook billing', { message: 'no route' }],
  ]);
  world.subscribing = Promise.resolve();
  await pass();
  expect(open()).toHaveLength(1);
});

test('keys that it has no more are unbound when it has begun, again until that is done', async () => {
  const { pass, unbound, world } = notifier([
    storedWebhook({ settings: { routingKeys: ['b'] }, formerRoutingKeys: ['a'] }),
  ]);
  await pass();
  world.unbinding = Promise.reject(new Error('gone'));
  await expect(pass()).rejects.toThrow('gone');
  world.unbinding = Promise.resolve();
  await pass();
  await pass();
  expect(unbound).toEqual([{ topic: 'orders', queue: QUEUE, routingKeys: ['a'] }]);
});

test('a key that it has again is not unbound', async () => {
  const { pass, unbound, world } = notifier([storedWebhook({ formerRoutingKeys: ['a', 'b'] })]);
  await pass();
  world.stored = [
    storedWebhook({ settings: { routingKeys: ['a'] }, formerRoutingKeys: ['b', '#'] }),
  ];
  await pass();
  expect(unbound).toEqual([{ topic: 'orders', queue: QUEUE, routingKeys: ['b'] }]);
});

test('one that was deleted elsewhere ends here, and is unbound once more', async () => {
  const { pass, open, unbound, world } = notifier([
    storedWebhook({ settings: { routingKeys: ['b'] }, formerRoutingKeys: ['a'] }),
  ]);
  await pass();
  world.stored = [];
  await pass();
  await pass();
  expect(open()).toEqual([]);
  expect(unbound.at(-1)).toEqual({ topic: 'orders', queue: QUEUE, routingKeys: ['b', 'a'] });
});

test('releasing ends it, unbinds it, and names the queues that are left', async () => {
  const webhook = storedWebhook({ settings: { retry: { delaysMs: [5, 5, 9] } } });
  const { pass, open, release, unbound } = notifier([webhook]);
  await pass();
  expect(await release(webhook)).toEqual([
    QUEUE,
    `${QUEUE}:retry-5ms`,
    `${QUEUE}:retry-9ms`,
    `${QUEUE}:dead`,
  ]);
  expect(open()).toEqual([]);
  expect(unbound).toEqual([{ topic: 'orders', queue: QUEUE, routingKeys: ['#'] }]);
});

test('a release that RabbitMQ does not answer rejects', async () => {
  const { release, world } = notifier([]);
  world.unbinding = Promise.reject(new Error('no route'));
  await expect(release(storedWebhook())).rejects.toThrow('no route');
});

test('one that is released while it begins ends as soon as it has begun', async () => {
  const begun = deferred<void>();
  const { reconcileOnce, release, subscriptions, world } = notifier([storedWebhook()]);
  world.subscribing = begun.promise;
  await reconcileOnce();
  const released = release(storedWebhook());
  begun.resolve();
  await released;
  expect(subscriptions).toMatchObject([{ closed: true }]);
});

test('410 is stored and alerted by whoever stored it', async () => {
  const { pass, subscriptions, observer, world } = notifier([storedWebhook()]);
  await pass();
  await expect(subscriptions[0]?.handler(delivered() as never)).rejects.toThrow('HTTP 410');
  const alert = {
    kind: 'webhookDisabled',
    webhook: 'billing',
    topic: 'orders',
    consumerGroup: 'billing',
    detail: 'the endpoint answered HTTP 410',
  };
  expect(observer.alerts).toEqual([alert]);
  expect(world.wakes).toBe(1);
});

test('410 that others have stored, or that can not be stored, raises no alert', async () => {
  for (const disabling of [async () => false, () => Promise.reject(new Error('no store'))]) {
    const { pass, subscriptions, observer, world } = notifier([storedWebhook()]);
    world.disabling = disabling;
    await pass();
    await expect(subscriptions[0]?.handler(delivered() as never)).rejects.toThrow('HTTP 410');
    expect(observer.alerts).toEqual([]);
  }
});

test('the first message that is given up is told at once, the others of a minute together', async () => {
  const { pass, observer, world } = notifier([storedWebhook()]);
  await pass();
  const deadLetter = (messageId: string) =>
    world.hear({
      event: 'deadLettered',
      reason: 'exhausted',
      attempts: 3,
      cause: 'HTTP 500',
      topic: 'orders',
      group: 'billing',
      messageId,
    });
  deadLetter('a-0');
  deadLetter('b-0');
  deadLetter('c-0');
  world.nowMs = 59_999;
  await pass();
  expect(observer.alerts).toMatchObject([
    { kind: 'webhookGaveUp', webhook: 'billing', messageId: 'a-0', detail: 'HTTP 500' },
  ]);
  world.nowMs = 60_000;
  await pass();
  expect(observer.alerts[1]).toMatchObject({
    messageId: 'c-0',
    detail: 'HTTP 500 (the last of 2 messages)',
  });
  world.nowMs = 120_000;
  await pass();
  expect(observer.alerts).toHaveLength(2);
  deadLetter('d-0');
  expect(observer.alerts).toHaveLength(3);
  const gaveUp = observer.counts.filter(([, { result }]) => result === 'gaveUp');
  expect(gaveUp).toHaveLength(4);
});

test('after a stop nothing is begun', async () => {
  const { pass, open, stop } = notifier([storedWebhook()]);
  await pass();
  await stop();
  await pass();
  expect(open()).toEqual([]);
});
