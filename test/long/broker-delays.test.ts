import { createProducer, type Producer } from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** What came due is seen within a quarter of a second; the rest is for a busy machine. */
const LATE_MS_MAX = 5_000;
/** Long enough for a busy machine to do what has to be done before a message is due. */
const NOT_YET_MS = 2_000;
const HOUR_MS = 3_600_000;

/** Databases and this process are on one machine, and have one clock. */
describe.each(['sqlite', 'mysql'] as const)('delayed messages on %s', (kind) => {
  const topic = uniqueName('order');
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let queue: BoundQueue;
  let producer: Producer;
  /** When each message arrived, by its id. */
  const arrivals = new Map<string, number>();

  beforeAll(async () => {
    store = await freshStore(kind);
    broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
    queue.received.push = (...messages) => {
      for (const { properties } of messages) arrivals.set(properties.messageId, Date.now());
      return Array.prototype.push.apply(queue.received, messages);
    };
    await registerGroup(broker.url, 'accounts');
    producer = createProducer({ brokers: [broker.url], producerGroup: 'accounts' });
  });
  afterAll(async () => {
    await producer.close();
    await queue.close();
    await broker.stop();
    await store.remove();
  });

  const message = (more: object = {}) => ({ topic, data: 1, ...more });
  const arrived = (id: string, number: number) => arrivals.get(`${id}-${number}`);
  async function commit(messages: object[]): Promise<{ id: string; at: number }> {
    const { body } = await call(`${broker.url}/v1/transactions`, 'POST', {
      producerGroup: 'accounts',
      messages,
    });
    await producer.commit(body.id);
    const { decision } = await view(broker.url, body.id);
    return { id: body.id, at: decision?.at ?? 0 };
  }
  const forwarded = (id: string) =>
    until('it is forwarded', async () => (await view(broker.url, id)).state === 'forwarded');

  async function arrivedInTime(id: string, number: number, dueAt: number): Promise<void> {
    await until('the message arrives', () => arrived(id, number) !== undefined, 20_000);
    const lateMs = (arrived(id, number) ?? 0) - dueAt;
    expect(lateMs).toBeGreaterThanOrEqual(0);
    expect(lateMs).toBeLessThan(LATE_MS_MAX);
    const found = queue.received.find(
      ({ properties: { messageId } }) => messageId === `${id}-${number}`,
    );
    expect(found?.properties.headers?.['escrow-due-at']).toBe(dueAt);
  }

  test('of one transaction, one message leaves now and one 300 ms later', async () => {
    const { id, at } = await commit([message({ delayMs: 300 }), message()]);
    await until('the first arrives', () => arrived(id, 1) !== undefined);
    await arrivedInTime(id, 0, at + 300);
    const plain = queue.received.find(({ properties }) => properties.messageId === `${id}-1`);
    expect(plain?.properties.headers).not.toHaveProperty('escrow-due-at');
    await forwarded(id);
    expect((await view(broker.url, id)).forwarding.failedAttempts).toBe(0);
    expect(queue.messageIds().filter((one) => one.startsWith(id))).toHaveLength(2);
  });

  test('each message of one transaction has a time of its own', async () => {
    const soon = Date.now() + NOT_YET_MS + 300;
    const { id, at } = await commit([
      message({ delayMs: NOT_YET_MS + 500 }),
      message({ deliverAt: soon }),
      message({ delayMs: NOT_YET_MS }),
    ]);
    const shown = (await view(broker.url, id)).messages.map(({ dueAt }) => dueAt);
    expect(shown).toEqual([at + NOT_YET_MS + 500, soon, at + NOT_YET_MS]);
    await arrivedInTime(id, 2, at + NOT_YET_MS);
    await arrivedInTime(id, 1, soon);
    await arrivedInTime(id, 0, at + NOT_YET_MS + 500);
  });

  test('a time that is over is no delay', async () => {
    const past = Date.now() - HOUR_MS;
    const { id } = await commit([message({ deliverAt: past })]);
    const { id: sent } = await producer.send({ messages: [message({ deliverAt: past })] });
    await until('both arrive', () => [id, sent].every((one) => arrived(one, 0) !== undefined));
    const headers = queue.received
      .filter(({ properties: { messageId } }) => [`${id}-0`, `${sent}-0`].includes(messageId))
      .map(({ properties }) => properties.headers?.['escrow-due-at']);
    expect(headers).toEqual([past, past]);
  });

  test('a send waits as well, and is repeated without being sent twice', async () => {
    const request = { messages: [message({ delayMs: NOT_YET_MS })] };
    const { id } = await producer.send(request);
    expect(await producer.send({ ...request, id })).toMatchObject({ state: 'committed' });
    const { decision, dueAt } = await view(broker.url, id);
    expect(dueAt).toBe((decision?.at ?? 0) + NOT_YET_MS);
    await arrivedInTime(id, 0, (decision?.at ?? 0) + NOT_YET_MS);
    await forwarded(id);
    expect(queue.messageIds().filter((one) => one === `${id}-0`)).toHaveLength(1);
  });

  test.each(['kill', 'stop'] as const)(
    'a broker that is ended by %s while messages wait sends them when it is back',
    async (how) => {
      const waiting = message({ delayMs: NOT_YET_MS });
      const { id, at } = await commit([waiting, message({ delayMs: 100 })]);
      const { id: sent } = await producer.send({ messages: [waiting] });
      await until('the first arrives', () => arrived(id, 1) !== undefined);
      await until('its result is saved', async () => {
        const { dueAt = 0 } = await view(broker.url, id);
        return dueAt === at + NOT_YET_MS;
      });
      await broker[how]();
      await broker.start();
      const { decision } = await view(broker.url, sent);
      const sentAt = decision?.at ?? 0;
      await until(
        'all arrive',
        () => arrived(id, 0) !== undefined && arrived(sent, 0) !== undefined,
      );
      for (const [one, dueAt] of [
        [id, at + NOT_YET_MS],
        [sent, sentAt + NOT_YET_MS],
      ] as const) {
        // How late depends on when the broker was back.
        expect(arrived(one, 0)).toBeGreaterThanOrEqual(dueAt);
        await forwarded(one);
      }
    },
  );

  test('what is cancelled before its time never arrives, and the rest does', async () => {
    const { id, at } = await commit([
      message({ delayMs: NOT_YET_MS }),
      message({ delayMs: NOT_YET_MS + 100 }),
    ]);
    expect(await producer.cancel(id, { messages: [0], reason: 'withdrawn' })).toEqual({
      id,
      state: 'committed',
      cancelled: [0],
    });
    await arrivedInTime(id, 1, at + NOT_YET_MS + 100);
    await forwarded(id);
    const { messages, history, settled } = await view(broker.url, id);
    expect(messages.map(({ state }) => state)).toEqual(['cancelled', 'forwarded']);
    expect(history).toMatchObject([
      { event: 'cancelled', detail: { messages: [0], by: 'producer', reason: 'withdrawn' } },
    ]);
    expect(settled).toBe(true);
    expect(arrived(id, 0)).toBeUndefined();
  });

  test('a cancelled send is finished at once, and a repeat of the call says the same', async () => {
    const { id } = await producer.send({ messages: [message({ delayMs: HOUR_MS })] });
    const cancelled = { id, state: 'forwarded', cancelled: [0] };
    expect(await producer.cancel(id, { reason: 'withdrawn' })).toEqual(cancelled);
    expect(await producer.cancel(id, { reason: 'withdrawn' })).toEqual(cancelled);
    expect((await view(broker.url, id)).history).toHaveLength(1);
  });

  test('after its time, before the commit, and without a delay there is nothing to cancel', async () => {
    const { id } = await commit([message({ delayMs: 1 }), message()]);
    await forwarded(id);
    await expect(producer.cancel(id, { reason: 'too late' })).rejects.toMatchObject({
      code: 'MESSAGE_NOT_CANCELLABLE',
      details: {
        notCancellable: [
          { number: 0, why: 'forwarded' },
          { number: 1, why: 'forwarded' },
        ],
      },
    });
    const prepared = await producer.prepare({ messages: [message({ delayMs: HOUR_MS })] });
    await expect(producer.cancel(prepared.id, { reason: 'early' })).rejects.toMatchObject({
      code: 'MESSAGE_NOT_CANCELLABLE',
      message: expect.stringContaining('roll the transaction back'),
    });
    await expect(producer.cancel(id, { reason: '' })).rejects.toMatchObject({
      code: 'INVALID_REQUEST',
    });
  });
});
