import { EventEmitter } from 'node:events';
import { expect, test } from '@jest/globals';
import type { Channel } from 'amqplib';
import { watchChannel } from '../../consumer-sdk/src/rabbit/channel.js';

/** A channel as amqplib has it, as far as it is watched. */
function channel(close: () => Promise<void>): Channel {
  return Object.assign(new EventEmitter(), { close }) as unknown as Channel;
}

test('a channel that is being closed is not open any more: amqplib throws at a late acknowledgement', async () => {
  let goodbyes = 0;
  let answer = () => {};
  const watched = watchChannel(
    channel(() => {
      goodbyes += 1;
      return new Promise((resolve) => {
        answer = resolve;
      });
    }),
  );
  expect(watched.isOpen).toBe(true);
  const closing = watched.close();
  expect(watched.isOpen).toBe(false);
  await watched.close();
  expect(goodbyes).toBe(1);
  answer();
  await closing;
});

test('a channel that was lost is not told goodbye', async () => {
  const lost = channel(() => Promise.reject(new Error('Channel closed')));
  const watched = watchChannel(lost);
  lost.emit('error', new Error('PRECONDITION_FAILED'));
  lost.emit('close');
  expect(watched.isOpen).toBe(false);
  await watched.close();
  expect(await watched.lost).toEqual(new Error('PRECONDITION_FAILED'));
});
