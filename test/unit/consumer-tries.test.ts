import { HEADERS } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { ConsumeMessage } from 'amqplib';
import {
  deliveryCountOf,
  isReturned,
  notBeforeOf,
  returnCountOf,
  triesOf,
} from '../../consumer-sdk/src/delivery/tries.js';
import { copyProperties } from '../../consumer-sdk/src/settle/copy.js';
import { requeuePauseMs } from '../../consumer-sdk/src/settle/next-step.js';

const retried = {
  [HEADERS.topic]: 't',
  [HEADERS.consumerGroup]: 'g',
  [HEADERS.attempts]: 3,
  [HEADERS.postponed]: 2,
  [HEADERS.notBefore]: 5_000,
  [HEADERS.firstFailedAt]: 1_000,
};
const dead = { ...retried, [HEADERS.deadReason]: 'exhausted' };
const diedIn = (queue: string) => ({
  ...retried,
  'x-death': [{ queue, reason: 'delivery_limit' }],
});

const readAs = (group: string, headers: Record<string, unknown>) => ({
  ...triesOf(headers, group),
  notBefore: notBeforeOf(headers, group),
  returned: isReturned(headers, group),
});
const counted = { attempts: 3, postponed: 2, notBefore: 5_000, returned: false };
const anew = { attempts: 0, postponed: 0, notBefore: undefined, returned: true };
const ofOthers = { ...anew, returned: false };

describe('N07: what the headers say of the tries of a group', () => {
  test.each([
    ['a retry', retried, counted],
    ['a retry, as RabbitMQ hands it back', diedIn('escrow:t:g:retry-1000ms'), counted],
    ['a message from elsewhere, retried', diedIn('orders.incoming'), counted],
    ['a dead letter', dead, anew],
    ['what RabbitMQ took out of the queue', diedIn('escrow:t:g'), anew],
    ['what RabbitMQ took out of a partition', diedIn('escrow:t:g:p3of8'), anew],
    ['what a policy let go of a queue of dead letters', diedIn('escrow:t:g:dead'), anew],
    [
      'a retry of what was moved back',
      { ...retried, [HEADERS.returnedAt]: 1 },
      { ...counted, returned: true },
    ],
    ['deaths that are none', { ...retried, 'x-death': ['x', null, {}, { queue: 7 }] }, counted],
  ])('of %s', (_what, headers, read) => {
    expect(readAs('g', headers)).toEqual(read);
  });

  test.each([
    ['a dead letter of another group, published to the topic', dead],
    ['a retry of another group', retried],
    ['what died in the queue of another', diedIn('escrow:t:g')],
    ['what another had moved back', { ...retried, [HEADERS.returnedAt]: 1 }],
  ])('of %s', (_what, headers) => {
    expect(readAs('other', headers)).toEqual(ofOthers);
  });

  test('the first copy of what was moved back tells of its new life only', () => {
    const original = {
      properties: { headers: { ...dead, tenant: 'a' } },
    } as unknown as ConsumeMessage;
    const step = { step: 'retry', queueMs: 10, inMs: 10, attempts: 1, postponed: 0 } as const;
    const failure = { group: 'g', cause: 'no', now: 9_000 };
    const { headers } = copyProperties(original, step, failure);
    expect(headers).toEqual({
      tenant: 'a',
      [HEADERS.topic]: 't',
      [HEADERS.consumerGroup]: 'g',
      [HEADERS.attempts]: 1,
      [HEADERS.returnedAt]: 9_000,
      [HEADERS.firstFailedAt]: 9_000,
      [HEADERS.lastFailedAt]: 9_000,
      [HEADERS.cause]: 'no',
    });
    const copy = { properties: { headers } } as unknown as ConsumeMessage;
    const second = copyProperties(copy, { ...step, attempts: 2 }, { ...failure, now: 9_500 });
    expect(second.headers).toMatchObject({
      [HEADERS.returnedAt]: 9_000,
      [HEADERS.firstFailedAt]: 9_000,
    });
  });

  test('the count of another queue is none of this one', () => {
    const delivery = (redelivered: boolean) =>
      ({
        fields: { redelivered },
        properties: { headers: { 'x-delivery-count': 60 } },
      }) as unknown as ConsumeMessage;
    expect([deliveryCountOf(delivery(false)), deliveryCountOf(delivery(true))]).toEqual([0, 60]);
  });

  test('V02: what was put back again and again waits longer, though RabbitMQ 4.3 counts no delivery', () => {
    const pauseFor = (headers: Record<string, number>, redelivered = true) =>
      requeuePauseMs(
        returnCountOf({
          fields: { redelivered },
          properties: { headers },
        } as unknown as ConsumeMessage),
      );
    expect(pauseFor({ 'x-acquired-count': 3 })).toBe(8_000);
    expect(pauseFor({ 'x-delivery-count': 3 })).toBe(8_000);
    expect(pauseFor({ 'x-acquired-count': 3, 'x-delivery-count': 1 })).toBe(8_000);
    expect(pauseFor({ 'x-acquired-count': 3 }, false)).toBe(1_000);
  });
});
