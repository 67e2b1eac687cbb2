import { EventEmitter } from 'node:events';
import { afterEach, expect, test } from '@jest/globals';
import type { ChannelModel } from 'amqplib';
import { Publishing } from '../../broker/src/rabbit/publishing.js';
import { outgoing, recordingObserver } from '../support/rabbit.js';
import { until } from '../support/until.js';

// What RabbitMQ can do but can't be made to do on time: answers that cross on two channels.

type Confirm = (error: Error | null) => void;

class FakeChannel extends EventEmitter {
  readonly confirms = new Map<string, Confirm>();
  closed = false;

  publish(
    _topic: string,
    _key: string,
    _body: Buffer,
    options: { messageId: string },
    confirm: Confirm,
  ) {
    this.confirms.set(options.messageId, confirm);
  }
  async assertExchange() {}
  async close() {
    this.closed = true;
    this.emit('close');
  }
  answer(messageId: string, error: Error | null = null) {
    this.confirms.get(messageId)?.(error);
  }
  giveBack(messageId: string) {
    this.emit('return', { fields: { replyCode: 312 }, properties: { messageId } });
  }
}

let publishing: Publishing;
let channels: FakeChannel[];

async function open(publishLimitMs: number): Promise<void> {
  channels = [];
  const model = {
    createChannel: async () => new FakeChannel(),
    async createConfirmChannel() {
      const channel = new FakeChannel();
      channels.push(channel);
      return channel;
    },
  };
  publishing = new Publishing({
    observer: recordingObserver(),
    windowMax: 10,
    windowBytesMax: 1_000_000,
    publishLimitMs,
  });
  publishing.connected(model as unknown as ChannelModel);
  await until('the channel is open', () => publishing.room > 0);
}

afterEach(() => publishing.stop(0));

const sentOn = (channel: FakeChannel | undefined, messageId: string) =>
  until(`${messageId} is sent`, () => channel!.confirms.has(messageId));

test('late answers on a retired channel are not taken for those of the repeat', async () => {
  // Half of it is what a busy machine has to answer before the younger one is late as well.
  const limitMs = 4_000;
  await open(limitMs);
  const startedAt = performance.now();
  const first = publishing.publish(outgoing('user', 'm-1'));
  await until('half the limit is over', () => performance.now() - startedAt > limitMs / 2);
  const younger = publishing.publish(outgoing('user', 'm-2'));
  expect((await first).kind).toBe('unconfirmed');

  await until('a new channel is open', () => publishing.room > 0);
  const second = publishing.publish(outgoing('user', 'm-1'));
  const [retired, current] = channels;
  await sentOn(current, 'm-1');
  expect(retired!.closed).toBe(false);
  retired!.giveBack('m-1');
  retired!.answer('m-1', new Error('message nacked'));
  retired!.answer('m-2');
  expect(await younger).toEqual({ kind: 'confirmed' });
  expect(retired!.closed).toBe(true);
  current!.answer('m-1');
  expect(await second).toEqual({ kind: 'confirmed' });
});

test('confirms may come in any order (F59)', async () => {
  await open(10_000);
  const outcomes = ['m-1', 'm-2', 'm-3'].map((id) => publishing.publish(outgoing('user', id)));
  await sentOn(channels[0], 'm-3');
  channels[0]!.giveBack('m-2');
  channels[0]!.answer('m-3', new Error('message nacked'));
  channels[0]!.answer('m-2');
  channels[0]!.answer('m-1');
  expect((await Promise.all(outcomes)).map(({ kind }) => kind)).toEqual([
    'confirmed',
    'returned',
    'nacked',
  ]);
});

test('a channel that closed takes everything on it along, and is replaced at once', async () => {
  await open(10_000);
  const outcome = publishing.publish(outgoing('user', 'm-1'));
  await sentOn(channels[0], 'm-1');
  channels[0]!.emit('error', Object.assign(new Error('INTERNAL_ERROR'), { code: 541 }));
  await channels[0]!.close();
  expect(await outcome).toEqual({
    kind: 'unconfirmed',
    detail: 'the channel to RabbitMQ closed: INTERNAL_ERROR',
  });
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  expect(channels).toHaveLength(2);
  expect(publishing.room).toBe(10);
});
