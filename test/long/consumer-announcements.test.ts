import type { ConsumerEvent } from '@escrowmq/consumer';
import { startTcpProxy } from '@escrowmq/local-servers';
import {
  ANNOUNCEMENTS_EXCHANGE,
  type Announcement,
  announcementKey,
  matchesTopicPattern,
  readAnnouncement,
} from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { announcedGroup } from '../../consumer-sdk/src/announce/announced.js';
import { createAnnouncer } from '../../consumer-sdk/src/announce/announcer.js';
import { parseSubscribeOptions } from '../../consumer-sdk/src/options.js';
import { keepConnection } from '../../consumer-sdk/src/rabbit/connection.js';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { publish } from '../support/publish.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** Two instances of one group, each with its own consumer. */
let bench: ConsumerBench;
let second: ConsumerBench;
let names: { topic: string; group: string };

beforeEach(async () => {
  bench = await openBench(rabbitmqUrl(), [50, 70]);
  second = await openBench(rabbitmqUrl());
  names = { topic: bench.topic, group: bench.group };
});
afterEach(async () => {
  await second.close();
  await bench.close();
});

const told = ({ events }: ConsumerBench, ...names: ConsumerEvent['event'][]) =>
  events.filter(({ event }) => names.includes(event));

/** Everything that is announced for the topic, as a broker hears it. */
async function listen(group: string | undefined = names.group): Promise<Announcement[]> {
  const heard: Announcement[] = [];
  await bench.channel.assertExchange(ANNOUNCEMENTS_EXCHANGE, 'topic', { durable: true });
  const { queue } = await bench.channel.assertQueue('', { exclusive: true });
  const key = announcementKey(names.topic, group);
  await bench.channel.bindQueue(queue, ANNOUNCEMENTS_EXCHANGE, key);
  await bench.channel.consume(
    queue,
    (message) => {
      const read = message && readAnnouncement(message.content, message.fields.routingKey);
      if (typeof read === 'object' && read !== null) heard.push(read);
    },
    { noAck: true },
  );
  return heard;
}

describe('N02: instances of one group that disagree', () => {
  test('on routing keys: both are told, messages that were not asked for as well, and the end', async () => {
    const received: string[] = [];
    const take = (who: string) => (message: { routingKey: string }) =>
      received.push(`${who} ${message.routingKey}`);
    await bench.consumer.subscribe({ ...names, routingKeys: ['a.*'] }, take('first'));
    // It hears of the first one only by its answer.
    await second.consumer.subscribe({ ...names, routingKeys: ['b.*'] }, take('second'));
    const ofSecond = await second.event('groupDisagrees');
    const ofFirst = await bench.event('groupDisagrees');
    expect(ofSecond).toMatchObject({ ...names, about: 'routingKeys', mine: 'b.*', theirs: 'a.*' });
    expect(ofFirst).toMatchObject({ about: 'routingKeys', mine: 'a.*', theirs: 'b.*' });
    expect([ofFirst.me, ofFirst.other]).toEqual([ofSecond.other, ofSecond.me]);
    expect(ofFirst.me.host).not.toBe('');
    expect(ofFirst.me.instance).not.toBe(ofFirst.other.instance);

    // RabbitMQ deals them out in turn, so each gets both kinds.
    for (const routingKey of ['a.1', 'b.1', 'b.1', 'a.1']) {
      await publish(bench.channel, { ...names, routingKey });
    }
    // Whoever gets one handles it.
    await until('all are handled', () => received.length === 4);
    const unasked = await bench.event('messageUnasked');
    expect(unasked).toMatchObject({ ...names, routingKey: 'b.1', count: 1 });
    expect(await second.event('messageUnasked')).toMatchObject({ routingKey: 'a.1' });
    expect(told(bench, 'messageUnasked')).toHaveLength(1);

    await second.consumer.close();
    expect(await bench.event('groupAgrees')).toMatchObject({ about: 'routingKeys', why: 'ended' });
    expect(told(bench, 'groupDisagrees')).toHaveLength(1);
  });

  test('on retry delays and on the mode', async () => {
    await bench.consumer.subscribe({ ...names, retryDelaysMs: [50] }, () => {});
    await second.consumer.subscribeBatch({ ...names, retryDelaysMs: [70] }, () => {});
    await bench.event('groupDisagrees', 2);
    expect(told(bench, 'groupDisagrees')).toMatchObject([
      { about: 'retryDelaysMs', mine: '50', theirs: '70' },
      { about: 'mode', mine: 'each', theirs: 'batch' },
    ]);
    await second.event('groupDisagrees', 2);
  });

  test('not at all: nothing is said, and other groups of the topic are not heard', async () => {
    const heard = await listen();
    await bench.consumer.subscribe({ ...names, retryDelaysMs: [50] }, () => {});
    await second.consumer.subscribe({ ...names, retryDelaysMs: [50] }, () => {});
    const other = { ...names, group: second.group, routingKeys: ['x'] };
    await second.consumer.subscribe(other, () => {});
    // Both have begun, and the first has answered.
    await until('three have spoken', () => heard.length >= 3);
    expect(heard.filter(({ asks }) => asks)).toHaveLength(2);
    expect(heard[0]).toMatchObject({ ...names, mode: 'each', retryDelaysMs: [50] });
    const said = [...bench.events, ...second.events].map(({ event }) => event);
    expect(new Set(said)).toEqual(new Set(['connected', 'consuming']));
  });
});

describe('N02: announcements', () => {
  test('of an ephemeral subscription have no group', async () => {
    const heard = await listen('');
    const options = { topic: names.topic, routingKeys: ['p.#'], onGap: () => {} };
    await bench.consumer.subscribeEphemeral(options, () => {});
    await until('it is announced', () => heard.length === 1);
    const { group, mode, routingKeys } = heard[0]!;
    expect({ group, mode, routingKeys }).toEqual({
      group: undefined,
      mode: 'ephemeral',
      routingKeys: ['p.#'],
    });
  });

  test('that can not be read are said once and harm nothing', async () => {
    const received: unknown[] = [];
    await bench.consumer.subscribe(names, ({ data }) => received.push(data));
    const heard = await listen();
    await until('it is bound', async () => {
      bench.channel.publish(
        ANNOUNCEMENTS_EXCHANGE,
        announcementKey(names.topic, names.group),
        Buffer.from('{'),
      );
      await bench.channel.waitForConfirms();
      return told(bench, 'announcementIgnored').length > 0;
    });
    const lies = { topic: names.topic, group: names.group, queues: ['x'.repeat(300)] };
    for (const lie of [lies, null, [[[]]], { ...lies, instance: 7 }]) {
      const body = Buffer.from(JSON.stringify(lie));
      bench.channel.publish(
        ANNOUNCEMENTS_EXCHANGE,
        announcementKey(names.topic, names.group),
        body,
      );
    }
    await bench.channel.waitForConfirms();
    await publish(bench.channel, { ...names, data: 'still here' });
    await until('a message is handled', () => received.length === 1);
    expect(told(bench, 'announcementIgnored')).toHaveLength(1);
    expect(heard).toEqual([]);
  });

  test('are repeated while the subscription lasts, and do not ask then', async () => {
    const log = () => {};
    const connection = keepConnection(rabbitmqUrl(), 'publishing', log);
    const announcer = createAnnouncer(connection, log, 100);
    try {
      const heard = await listen();
      announcer.add(announcedGroup(parseSubscribeOptions(names), 'each'));
      await until('it is announced three times', () => heard.length >= 3);
      expect(heard.slice(0, 3).filter(({ asks }) => asks)).toHaveLength(1);
    } finally {
      await announcer.close();
      await connection.close();
    }
  });

  test('are made again after the connection was lost, and at the end of a subscription', async () => {
    const proxy = await startTcpProxy(rabbitmqUrl());
    const cutOff = await openBench(rabbitmqUrl(), [], proxy.url);
    try {
      const heard = await listen();
      const subscription = await cutOff.consumer.subscribe(names, () => {});
      await until('it is announced', () => heard.length === 1);
      proxy.cut();
      await until('it is announced again', () => heard.length === 2);
      expect(heard.map(({ asks, ends }) => [asks, ends])).toEqual([
        [true, undefined],
        [true, undefined],
      ]);
      await subscription.close();
      await until('its end is announced', () => heard.at(-1)?.ends === true);
      expect(new Set(heard.map(({ instance }) => instance)).size).toBe(1);
    } finally {
      await cutOff.close();
      await proxy.close();
    }
  });
});

test('N02: patterns match as they do in RabbitMQ', async () => {
  const patterns = [
    '#',
    '*',
    '',
    'a',
    'a.*',
    'a.#',
    '#.a',
    '*.#',
    '#.#',
    'a.#.b',
    '*.*',
    '.',
    'a.',
    'a*',
  ];
  const keys = ['', 'a', 'b', 'a.b', 'a.x.b', 'x.a', 'a.', '.', 'a.b.c', 'ab', '.a'];
  const { channel } = bench;
  const exchange = uniqueName('patterns');
  await channel.assertExchange(exchange, 'topic', { autoDelete: true });
  const matched = new Set<string>();
  for (const pattern of patterns) {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, exchange, pattern);
    const take = { noAck: true };
    await channel.consume(
      queue,
      (message) => matched.add(`${pattern} ${message?.fields.routingKey}`),
      take,
    );
  }
  for (const key of keys) channel.publish(exchange, key, Buffer.alloc(0));
  // Behind all others, in a queue that gets everything.
  channel.publish(exchange, 'last', Buffer.alloc(0));
  await channel.waitForConfirms();
  await until(
    'the last one came',
    () =>
      matched.has('# last') &&
      matched.has('* last') &&
      matched.has('#.# last') &&
      matched.has('*.# last'),
  );
  const expected = patterns.flatMap((pattern) =>
    [...keys, 'last']
      .filter((key) => matchesTopicPattern(pattern, key))
      .map((key) => `${pattern} ${key}`),
  );
  await until('all came', () => matched.size >= expected.length);
  expect([...matched].sort()).toEqual(expected.sort());
});
