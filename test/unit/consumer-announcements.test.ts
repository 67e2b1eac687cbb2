import { type Announcement, announcementKey, LIMITS, readAnnouncement } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { announcedGroup } from '../../consumer-sdk/src/announce/announced.js';
import { disagreements } from '../../consumer-sdk/src/announce/disagreement.js';
import { PEER_LOST_AFTER_MS, Peers } from '../../consumer-sdk/src/announce/peers.js';
import { AskedKeys } from '../../consumer-sdk/src/delivery/asked-keys.js';
import type { Envelope } from '../../consumer-sdk/src/delivery/message.js';
import type { ConsumerEvent } from '../../consumer-sdk/src/events.js';
import { OnceAMinute } from '../../consumer-sdk/src/once-a-minute.js';
import { parseSubscribeOptions } from '../../consumer-sdk/src/options.js';

const NAMES = { topic: 'user', group: 'phone-index' };

function announcement(changes: Partial<Announcement> = {}): Announcement {
  const settings = parseSubscribeOptions({
    ...NAMES,
    routingKeys: ['a.*'],
    retryDelaysMs: [1_000],
  });
  return { ...announcedGroup(settings, 'each'), at: 1_790_000_000_000, ...changes };
}
const bytesOf = (value: unknown) => Buffer.from(JSON.stringify(value));
const KEY = announcementKey(NAMES.topic, NAMES.group);
const read = (value: unknown) => readAnnouncement(bytesOf(value), KEY);

describe('N02: an announcement', () => {
  test('says topic, group, keys, mode, delays, queues, host, instance and version', () => {
    const said = announcement();
    expect(read(said)).toEqual(said);
    expect(said).toMatchObject({
      ...NAMES,
      routingKeys: ['a.*'],
      mode: 'each',
      retryDelaysMs: [1_000],
      queues: [
        'escrow:user:phone-index:dead',
        'escrow:user:phone-index',
        'escrow:user:phone-index:retry-1000ms',
      ],
    });
    const ordered = parseSubscribeOptions({ ...NAMES, ordered: { partitions: 2 } });
    const { mode, partitions, queues } = announcedGroup(ordered, 'each');
    expect({ mode, partitions }).toEqual({ mode: 'ordered', partitions: 2 });
    expect(queues).toContain('escrow:user:phone-index:p1of2');
  });

  test('of the largest subscription that there is can be read', () => {
    const settings = parseSubscribeOptions({
      topic: 't'.repeat(LIMITS.topicCharsMax),
      group: 'g'.repeat(LIMITS.groupCharsMax),
      routingKeys: Array.from({ length: 100 }, (_, n) => `${n}.${'"'.repeat(250)}`),
      retryDelaysMs: Array.from({ length: 32 }, (_, n) => n + 1),
      handlerTimeoutMs: 1,
      ordered: { partitions: 32 },
    });
    const { topic, group } = settings;
    const said = { ...announcedGroup(settings, 'each'), at: 0 };
    expect(readAnnouncement(bytesOf(said), announcementKey(topic, group))).toEqual(said);
  });

  test('of a later version may say more, and have a mode that is not known here', () => {
    expect(read({ ...announcement(), colour: 'red', mode: 'streamed' })).toMatchObject({
      mode: 'streamed',
    });
  });

  test.each([
    ['no JSON', Buffer.from('{'), 'not JSON'],
    ['no UTF-8', Buffer.from([0x22, 0xff, 0x22]), 'not JSON'],
    ['a list', bytesOf([]), 'expected object'],
    ['null', bytesOf(null), 'expected object'],
    ['no keys', bytesOf({ ...announcement(), routingKeys: [] }), 'routingKeys'],
    [
      'too many keys',
      bytesOf({ ...announcement(), routingKeys: Array(101).fill('a') }),
      'routingKeys',
    ],
    ['a host with a line break', bytesOf({ ...announcement(), host: 'a\nb' }), 'host'],
    ['an instance that is a sentence', bytesOf({ ...announcement(), instance: 'a b' }), 'instance'],
    ['another topic than its key', bytesOf({ ...announcement(), topic: 'other' }), 'came as'],
    ['too much', Buffer.alloc(LIMITS.announcementBytesMax + 1, 0x20), 'bytes'],
    ['too deep', Buffer.from('['.repeat(100_000)), 'not JSON'],
  ])('with %s is not read, and harms nobody', (_what, body, problem) => {
    expect(readAnnouncement(body, KEY)).toEqual(expect.stringContaining(problem));
  });

  test('names of topics and groups never run into each other', () => {
    expect(announcementKey('a.b', 'c')).not.toBe(announcementKey('a', 'b.c'));
    expect(announcementKey('a', undefined)).not.toBe(announcementKey('a', 'b'));
  });
});

const theirs = (changes: Partial<Announcement> = {}) =>
  announcement({ instance: 'other', host: 'there', ...changes });

describe('N02: instances that disagree', () => {
  test.each<[Partial<Announcement>, object[]]>([
    [{}, []],
    [{ routingKeys: ['a.*', 'a.*'] }, []],
    [{ routingKeys: ['b'] }, [{ about: 'routingKeys', mine: 'a.*', theirs: 'b' }]],
    [{ retryDelaysMs: [5] }, [{ about: 'retryDelaysMs', mine: '1000', theirs: '5' }]],
    [{ mode: 'batch' }, [{ about: 'mode', mine: 'each', theirs: 'batch' }]],
    [
      { mode: 'ordered', partitions: 4 },
      [{ about: 'mode', mine: 'each', theirs: 'ordered in 4 partitions' }],
    ],
  ])('%j', (changes, found) => {
    expect(disagreements(announcement(), theirs(changes))).toEqual(found);
  });

  test('the order of keys does not matter', () => {
    const mine = announcement({ routingKeys: ['a', 'b'] });
    expect(disagreements(mine, theirs({ routingKeys: ['b', 'a'] }))).toEqual([]);
  });

  const shown = (events: ConsumerEvent[]) =>
    events.map((event) =>
      event.event === 'groupDisagrees'
        ? `${event.about}: ${event.me.host} ${event.mine}, ${event.other.host} ${event.theirs}`
        : event.event === 'groupAgrees'
          ? `${event.about}: ${event.why}`
          : event.event,
    );
  const peers = () => new Peers(announcement({ host: 'here' }));

  test('are told once, again when it changes, and when it is over', () => {
    const told = peers();
    const hear = (changes: Partial<Announcement>, now: number) =>
      shown(told.heard(theirs(changes), now));
    expect(hear({ routingKeys: ['b'] }, 0)).toEqual(['routingKeys: here a.*, there b']);
    expect(hear({ routingKeys: ['b'] }, 1)).toEqual([]);
    expect(hear({ routingKeys: ['c'] }, 2)).toEqual(['routingKeys: here a.*, there c']);
    expect(hear({ routingKeys: ['c'], mode: 'batch' }, 3)).toEqual([
      'mode: here each, there batch',
    ]);
    expect(hear({ mode: 'batch' }, 4)).toEqual(['routingKeys: agrees']);
    expect(hear({ mode: 'batch', ends: true }, 5)).toEqual(['mode: ended']);
    expect(hear({ ends: true }, 6)).toEqual([]);
  });

  test('are forgotten when they are not heard of for three minutes, and that is told', () => {
    const told = peers();
    told.heard(theirs({ mode: 'batch' }), 0);
    told.heard(theirs({ instance: 'quiet', mode: 'each' }), 0);
    expect(told.expire(PEER_LOST_AFTER_MS)).toEqual([]);
    expect(shown(told.expire(PEER_LOST_AFTER_MS + 1))).toEqual(['mode: silent']);
    expect(told.expire(PEER_LOST_AFTER_MS + 1)).toEqual([]);
  });

  test('in any number are told twenty in a minute, and the rest later', () => {
    const told = peers();
    const hearAll = (now: number) =>
      Array.from({ length: 50 }, (_, n) =>
        theirs({ instance: `other-${n}`, mode: 'batch' }),
      ).flatMap((each) => told.heard(each, now)).length;
    expect([hearAll(0), hearAll(59_999), hearAll(60_000), hearAll(120_000)]).toEqual([
      20, 0, 20, 10,
    ]);
  });

  test('beyond a thousand are not listened to', () => {
    const told = peers();
    for (let n = 0; n < 1_000; n += 1) told.heard(theirs({ instance: `other-${n}` }), 0);
    expect(told.heard(theirs({ mode: 'batch' }), 0)).toEqual([]);
  });

  test('with values without end are shown with an end', () => {
    const [event] = peers().heard(
      theirs({
        routingKeys: Array(100)
          .fill('x'.repeat(255))
          .map((x, n) => n + x.slice(4)),
      }),
      0,
    );
    expect((event as { theirs: string }).theirs.length).toBeLessThan(400);
  });
});

describe('N02: a message whose key was not asked for', () => {
  const looks = (routingKeys: string[], messages: Partial<Envelope>[]) => {
    const events: ConsumerEvent[] = [];
    const asked = new AskedKeys({ ...NAMES, routingKeys }, (event) => events.push(event));
    for (const message of messages) {
      asked.look({ id: 'm', routingKey: 'a', attempts: 0, postponed: 0, ...message } as Envelope);
    }
    return events;
  };

  test('is told, the first at once', () => {
    expect(looks(['b.*', 'c'], [{ routingKey: 'b.1' }, { routingKey: 'c' }, {}, {}])).toEqual([
      { event: 'messageUnasked', ...NAMES, messageId: 'm', routingKey: 'a', count: 1 },
    ]);
  });

  test('is told at its first attempt only, and never where all were asked for', () => {
    expect(looks(['b'], [{ attempts: 1 }, { postponed: 1 }])).toEqual([]);
    expect(looks(['b', '#'], [{}])).toEqual([]);
  });

  test('is counted for a minute before it is told again', () => {
    const counter = new OnceAMinute();
    const counts = [0, 1, 59_999, 60_000, 60_001, 200_000].map((now) => counter.count(now));
    expect(counts).toEqual([1, undefined, undefined, 3, undefined, 2]);
  });
});
