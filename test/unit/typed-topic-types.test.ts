import {
  type Consumer,
  createConsumer,
  defineTopic as defineForConsumer,
  type KeyOf,
  type TopicMessage,
} from '@escrowmq/consumer';
import { createProducer, defineTopic, type MessageInput, type Producer } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import { type } from 'arktype';
import * as v from 'valibot';
import { z } from 'zod';

/*
 * What the compiler says of typed topics: `tsc -p test` reads this file, and fails where a line under
 * @ts-expect-error compiles, or where a type is another one than it was. Nothing of it is called.
 */

type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <_A, _B>(_is: Same<_A, _B>) => undefined;

const user = defineTopic('user', {
  registered: z.object({ userId: z.number(), at: z.coerce.date() }),
  moved: {
    1: v.object({ to: v.string() }),
    2: type({ street: 'string', city: 'string' }),
  },
  '': z.string().transform((text) => text.length),
});

function made(producer: Producer) {
  const message = user.message('registered', { userId: 7, at: '2030-01-01' });
  same<typeof message.topic, 'user'>(true);
  same<typeof message.routingKey, 'registered'>(true);
  user.message('registered', { userId: 7, at: 1 }, { delayMs: 5, headers: { tenant: 'a' } });
  user.message('moved', { to: 'Bremen' }, { version: 1 });
  user.message('moved', { street: 'Weg', city: 'Bremen' }, { version: 2, orderingKey: 'u7' });
  user.open('moved', { version: 2 });
  user.open('registered');
  user.data('moved', { to: 'Bremen' }, { version: 1 });
  void producer.send({ messages: [message, { topic: 'plain', data: 1 }] });
  void producer.prepare({ messages: [message] });
  same<typeof message extends MessageInput ? true : false, true>(true);

  // @ts-expect-error userId is a number
  user.message('registered', { userId: '7', at: 1 });
  // @ts-expect-error a field that the schema does not have
  user.message('registered', { userId: 7, at: 1, phone: '138' });
  // @ts-expect-error a field is missing
  user.data('registered', { at: 1 });
  // @ts-expect-error no such key
  user.message('deleted', { userId: 7 });
  // @ts-expect-error which of the two versions?
  user.message('moved', { to: 'Bremen' });
  // @ts-expect-error these are the data of version 1
  user.message('moved', { to: 'Bremen' }, { version: 2 });
  // @ts-expect-error no such version
  user.message('moved', { to: 'Bremen' }, { version: 3 });
  // @ts-expect-error a schema that stands alone has no versions
  user.message('registered', { userId: 7, at: 1 }, { version: 1 });
  // @ts-expect-error no option of a message
  user.message('registered', { userId: 7, at: 1 }, { delay: 1 });
  // @ts-expect-error no schema
  defineTopic('user', { registered: { userId: 'number' } });
}

function handled(consumer: Consumer) {
  const group = 'index';
  void consumer.subscribe({ topic: user, group }, (message) => {
    same<typeof message.topic, 'user'>(true);
    switch (message.routingKey) {
      case 'registered':
        same<typeof message.data, { userId: number; at: Date }>(true);
        same<typeof message.version, 1>(true);
        break;
      case 'moved':
        same<typeof message.data, { to: string } | { street: string; city: string }>(true);
        if (message.version === 2)
          same<typeof message.data, { street: string; city: string }>(true);
        break;
      case '':
        same<typeof message.data, number>(true);
        break;
      default:
        same<typeof message, never>(true);
    }
  });
  void consumer.subscribe({ topic: user, group, routingKeys: ['registered'] }, (message) => {
    same<typeof message, TopicMessage<typeof user, 'registered'>>(true);
    same<typeof message.data.at, Date>(true);
  });
  void consumer.subscribe({ topic: user, group, ordered: { partitions: 4 } }, (message) => {
    same<typeof message.routingKey, 'registered' | 'moved' | ''>(true);
  });
  void consumer.subscribeBatch({ topic: user, group, batchMax: 5 }, (messages) => {
    for (const message of messages) {
      if (message.routingKey === 'registered') same<typeof message.data.userId, number>(true);
    }
    const [message] = messages;
    return { failed: message === undefined ? [] : [{ message, error: new Error('no') }] };
  });
  void consumer.subscribeEphemeral({ topic: user, onGap: () => undefined }, (message) => {
    if (message.routingKey === 'registered') same<typeof message.data.userId, number>(true);
    // @ts-expect-error only a consumer group has attempts
    void message.attempts;
  });
  // @ts-expect-error no key of the topic
  void consumer.subscribe({ topic: user, group, routingKeys: ['deleted'] }, () => undefined);
  // @ts-expect-error a pattern is no key of the topic
  void consumer.subscribe({ topic: user, group, routingKeys: ['#'] }, () => undefined);

  // Plain names as ever.
  void consumer.subscribe({ topic: 'user', group, routingKeys: ['#'] }, (message) => {
    same<typeof message.data, unknown>(true);
  });
  void consumer.subscribe<{ userId: number }>({ topic: 'user', group }, (message) => {
    same<typeof message.data.userId, number>(true);
  });
  void consumer.subscribeBatch<{ userId: number }>({ topic: 'user', group }, (messages) => {
    same<(typeof messages)[number]['data'], { userId: number }>(true);
  });
  const ephemeral = { topic: 'user', onGap: () => undefined };
  void consumer.subscribeEphemeral<{ userId: number }>(ephemeral, (message) => {
    same<typeof message.data, { userId: number }>(true);
  });
}

test('N10: the compiler sees the data of each key where a message is made and where it is handled', () => {
  same<KeyOf<typeof user>, 'registered' | 'moved' | ''>(true);
  // One definition for both sides, whichever SDK it was imported from.
  expect(defineForConsumer).toBe(defineTopic);
  for (const uncalled of [made, handled, createProducer, createConsumer]) {
    expect(uncalled).toBeInstanceOf(Function);
  }
});
