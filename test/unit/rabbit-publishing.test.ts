import { EventEmitter } from 'node:events';
import { afterEach, describe, expect, test } from '@jest/globals';
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
let connection: EventEmitter;

function newModel() {
  connection = new EventEmitter();
  const model = Object.assign(connection, {
    createChannel: async () => new FakeChannel(),
    async createConfirmChannel() {
      const channel = new FakeChannel();
      channels.push(channel);
      return channel;
    },
  });
  // As the kept connection does; without a listener the emitter would throw.
  connection.on('error', () => undefined);
  return { model: model as unknown as ChannelModel };
}

async function open(publishLimitMs: number): Promise<void> {
  channels = [];
  publishing = new Publishing({
    observer: recordingObserver(),
    windowMax: 10,
    windowBytesMax: 1_000_000,
    publishLimitMs,
  });
  publishing.connected(newModel().model);
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

describe('U06: a channel that RabbitMQ closes over one message', () => {
  const closedBy = async (channel: FakeChannel | undefined, code: number, text: string) => {
    channel!.emit('error', Object.assign(new Error(text), { code }));
    await channel!.close();
  };
  const publish = (messageId: string, routingKey = 'registered') =>
    publishing.publish(outgoing('user', messageId, { routingKey }));
  /** The open channel that the message was sent on. */
  const carrierOf = async (messageId: string) => {
    const carries = (channel: FakeChannel) => !channel.closed && channel.confirms.has(messageId);
    await until(`${messageId} is sent`, () => channels.some(carries));
    return channels.find(carries);
  };
  const INVALID = 'PRECONDITION_FAILED - something is invalid';

  test('of which RabbitMQ does not say which: each is tried alone, and the others go on beside', async () => {
    await open(10_000);
    const first = [publish('bad'), publish('good')];
    await sentOn(channels[0], 'good');
    await closedBy(channels[0], 406, INVALID);
    expect(await Promise.all(first)).toEqual([
      { kind: 'interrupted', detail: expect.stringContaining(INVALID) },
      { kind: 'interrupted', detail: expect.stringContaining(INVALID) },
    ]);
    await until('there is a new channel', () => publishing.room > 0);

    const again = [publish('bad'), publish('good')];
    const beside = publish('beside');
    expect(await carrierOf('beside')).toBe(channels[1]);
    expect(await carrierOf('bad')).toBe(channels[2]);
    expect(channels[2]!.confirms.has('good')).toBe(false);
    await closedBy(channels[2], 406, INVALID);
    expect(await again[0]).toEqual({
      kind: 'refused',
      detail: `RabbitMQ closes the channel over this message: ${INVALID}`,
    });
    (await carrierOf('good'))!.answer('good');
    channels[1]!.answer('beside');
    expect(await again[1]).toEqual({ kind: 'confirmed' });
    expect(await beside).toEqual({ kind: 'confirmed' });
    expect(channels).toHaveLength(4);
  });

  test('or the whole connection: the one that does so alone is refused, what goes on beside is not', async () => {
    await open(10_000);
    const syntax = Object.assign(new Error('SYNTAX_ERROR - illegal field'), { code: 502 });
    const dies = async () => {
      connection.emit('error', syntax);
      for (const channel of [...channels]) if (!channel.closed) await channel.close();
      publishing.disconnected(syntax.message);
      const { model } = newModel();
      publishing.connected(model);
      await until('there is a new channel', () => publishing.room > 0);
    };
    const first = [publish('bad'), publish('good')];
    await sentOn(channels[0], 'good');
    await dies();
    expect((await Promise.all(first)).map(({ kind }) => kind)).toEqual([
      'interrupted',
      'interrupted',
    ]);

    const again = publish('bad');
    const beside = publish('beside');
    await carrierOf('beside');
    await carrierOf('bad');
    await dies();
    expect(await again).toMatchObject({
      kind: 'refused',
      detail: expect.stringContaining('SYNTAX'),
    });
    expect((await beside).kind).toBe('interrupted');
    const third = publish('good');
    (await carrierOf('good'))!.answer('good');
    expect(await third).toEqual({ kind: 'confirmed' });
  });

  test('a key too long for RabbitMQ to name whole is found all the same', async () => {
    await open(10_000);
    const long = 'k'.repeat(230);
    const outcomes = [publish('m-1', 'ok'), publish('m-2', long), publish('m-3', 'ok')];
    await sentOn(channels[0], 'm-3');
    await closedBy(
      channels[0],
      403,
      `closed with message "ACCESS_REFUSED - access to topic '${'k'.repeat(220)}..."`,
    );
    expect((await Promise.all(outcomes)).map(({ kind }) => kind)).toEqual([
      'interrupted',
      'refused',
      'interrupted',
    ]);
  });

  test('trouble of RabbitMQ itself refuses no message, not even one that was alone', async () => {
    await open(10_000);
    const outcome = publish('m-1');
    await sentOn(channels[0], 'm-1');
    await closedBy(channels[0], 541, 'INTERNAL_ERROR');
    expect((await outcome).kind).toBe('unconfirmed');
  });
});
