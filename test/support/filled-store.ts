import { createConsumer, PermanentError } from '@escrowmq/consumer';
import { CLIENT_HEADER, clientOf } from '@escrowmq/protocol';
import { expect } from '@jest/globals';
import { connect } from 'amqplib';
import { uuidv7 } from 'uuidv7';
import { rabbitmqUrl, uniqueName } from './servers.js';
import { until } from './until.js';

/*
 * A store with a transaction in every state, made through the API of whatever broker serves it, and
 * looked at again by the one that comes after.
 */

const HOUR_MS = 3_600_000;

interface Filled {
  group: string;
  topic: string;
  /** Nothing was bound to it. */
  lonelyTopic: string;
  /** Transactions by what became of them. */
  ids: Record<string, string>;
  close(): Promise<void>;
}

export const STATES_BEFORE = {
  prepared: 'prepared',
  delayed: 'committed',
  forwarded: 'forwarded',
  rolledBack: 'rolledBack',
  unresolved: 'parked unresolved',
  undeliverable: 'parked undeliverable',
  waitsInLine: 'committed',
  cancelled: 'forwarded',
  consumed: 'forwarded',
  owed: 'forwarded',
  compensated: 'forwarded',
};

// biome-ignore lint/suspicious/noExplicitAny: answers of two versions, read by their names
type Answer = any;

async function call(
  broker: string,
  [method, path]: [method: string, path: string],
  body?: object,
): Promise<Answer> {
  const response = await fetch(`${broker}/v1${path}`, {
    method,
    headers: {
      [CLIENT_HEADER]: clientOf('escrowmq-producer'),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answer = await response.json();
  expect([path, response.status, answer]).toEqual([
    path,
    response.status === 201 ? 201 : 200,
    answer,
  ]);
  return answer;
}

const view = (broker: string, id: string | undefined) =>
  call(broker, ['GET', `/transactions/${id}`]);

export async function fillStore(broker: string): Promise<Filled> {
  const group = uniqueName('accounts');
  const topic = uniqueName('user');
  const lonelyTopic = uniqueName('lonely');
  const consumer = createConsumer({ rabbitmq: rabbitmqUrl(), logger: () => undefined });
  await consumer.subscribe<{ refuse?: true }>({ topic, group: 'index' }, ({ data }) => {
    if (data.refuse) throw new PermanentError('refused');
  });
  await call(broker, ['PUT', `/producer-groups/${group}`], {
    checkUrls: [],
    compensationUrls: ['http://127.0.0.1:9/compensation'],
    checkPolicy: { unknownMax: 1, firstDelayMs: 60_000 },
    version: 3,
  });
  await call(broker, ['PUT', `/webhooks/${group}`], {
    topic,
    url: 'http://127.0.0.1:9/hook',
    enabled: false,
  });

  const message = { topic, routingKey: 'registered', data: {} };
  const transaction = (messages: object[], more: object = {}) => ({
    id: uuidv7(),
    producerGroup: group,
    messages,
    ...more,
  });
  const prepare = async (more: object = {}): Promise<string> =>
    (await call(broker, ['POST', '/transactions'], transaction([message], more))).id;
  const send = async (of: object, more: object = {}): Promise<string> =>
    (await call(broker, ['POST', '/messages'], transaction([{ ...message, ...of }], more))).id;
  const later = { checkAfterMs: HOUR_MS };
  const refused = { data: { refuse: true }, compensate: true };
  const lonely = { topic: lonelyTopic, orderingKey: 'user:7' };

  const ids: Record<string, string> = {
    prepared: await prepare({ ...later, businessKeys: ['phone:1'], checkContext: 'shard-3' }),
    delayed: await send({ delayMs: HOUR_MS }),
    forwarded: await send({}),
    rolledBack: await prepare(later),
    unresolved: await prepare({ checkAfterMs: 0 }),
    undeliverable: await send(lonely),
    waitsInLine: await send(lonely),
    cancelled: await send({ delayMs: HOUR_MS }),
    consumed: await send({ data: { deep: [1, 'ü', null] } }, { expects: ['index'] }),
    owed: await send(refused, { expects: ['index'] }),
    compensated: await send(refused, { expects: ['index'] }),
  };
  await call(broker, ['POST', `/transactions/${ids.rolledBack}/rollback`]);
  await call(broker, ['POST', `/transactions/${ids.cancelled}/cancel`], { reason: 'not wanted' });
  const { checks } = await call(broker, ['POST', `/producer-groups/${group}/checks`], {
    waitMs: 10_000,
  });
  const answers = checks.map(({ id }: { id: string }) => ({ id, decision: 'unknown' }));
  await call(broker, ['POST', `/producer-groups/${group}/checks`], { answers });
  const owes = async (name: string) =>
    (await view(broker, ids[name])).compensations[0]?.state === 'owed';
  await until('both owe a compensation', async () => (await owes('owed')) && owes('compensated'));
  await resolve(broker, ids.compensated, 'compensated');
  const filled = { group, topic, lonelyTopic, ids, close: () => consumer.close() };
  await until('every one is where it is meant to be', async () => {
    const { states, views } = await look(broker, filled);
    const isSettled = views.find(({ id }) => id === ids.consumed)?.settled === true;
    return isSettled && JSON.stringify(states) === JSON.stringify(STATES_BEFORE);
  });
  return filled;
}

const resolve = (broker: string, id: string | undefined, action: string) =>
  call(broker, ['POST', `/transactions/${id}/resolve`], {
    action,
    operator: 'alice',
    reason: 'a test',
  });

/** All that the API shows of it, but for what a broker goes on doing by itself. */
export async function look(
  broker: string,
  { ids, group }: Filled,
): Promise<{ states: object; views: Answer[]; group: object; webhook: object }> {
  const states: Record<string, string> = {};
  const views: Answer[] = [];
  for (const [name, id] of Object.entries(ids)) {
    const { dueAt, compensations, ...rest } = await view(broker, id);
    const { state, parkedReason } = rest;
    states[name] = parkedReason === undefined ? state : `${state} ${parkedReason}`;
    const ended = compensations.filter(({ state: its }: Answer) => its !== 'owed');
    views.push({ ...rest, compensations: ended, owed: compensations.length - ended.length });
  }
  return {
    states,
    views,
    group: await call(broker, ['GET', `/producer-groups/${group}`]),
    webhook: await call(broker, ['GET', `/webhooks/${group}`]),
  };
}

/** Lets the broker go on with each of them to its end. */
export async function finish(broker: string, { ids, lonelyTopic }: Filled): Promise<void> {
  await call(broker, ['POST', `/transactions/${ids.prepared}/commit`]);
  await call(broker, ['POST', `/transactions/${ids.delayed}/cancel`], { reason: 'not wanted' });
  await resolve(broker, ids.unresolved, 'commit');
  await resolve(broker, ids.owed, 'compensated');
  const connection = await connect(rabbitmqUrl());
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, lonelyTopic, '#');
  await resolve(broker, ids.undeliverable, 'resend');
  for (const [name, id] of Object.entries(ids)) {
    const end = name === 'rolledBack' ? 'rolledBack' : 'forwarded';
    await until(`${name} has ended`, async () => (await view(broker, id)).state === end);
  }
  const inOrder: unknown[] = [];
  await channel.consume(queue, (got) => inOrder.push(got?.properties.messageId));
  await until('both of the line have come', () => inOrder.length === 2);
  expect(inOrder).toEqual([`${ids.undeliverable}-0`, `${ids.waitsInLine}-0`]);
  expect((await view(broker, ids.owed)).compensations).toMatchObject([{ state: 'done' }]);
  await connection.close();
}
