import { mayStillSettle, type TransactionView } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { expectationsOfAll } from '../../broker/src/domain/expectations.js';
import { type KeptReceipt, standingsOf } from '../../broker/src/domain/group-standing.js';

const receipt = (changes: Partial<KeptReceipt> = {}): KeptReceipt => ({
  consumerGroup: 'stock',
  message: 0,
  kind: 'consumed',
  at: 10,
  ...changes,
});

/** Of a transaction whose groups are to consume all of its messages. */
const standings = (groups: string[], messageCount: number, receipts: KeptReceipt[]) =>
  standingsOf(expectationsOfAll(groups, messageCount), 0, receipts);

describe('what became of a transaction in a group', () => {
  test('without a receipt for every message it waits', () => {
    expect(standings([], 1, [])).toEqual([]);
    expect(standings(['stock'], 2, [])).toEqual([
      { consumerGroup: 'stock', state: 'waiting', attempts: 0 },
    ]);
    expect(standings(['stock'], 2, [receipt({ attempts: 3 })])).toEqual([
      { consumerGroup: 'stock', state: 'waiting', attempts: 3 },
    ]);
  });

  test('it is consumed when its last message was', () => {
    const receipts = [
      receipt({ at: 30, attempts: 1 }),
      receipt({ message: 1, at: 20, attempts: 4 }),
    ];
    expect(standings(['stock'], 2, receipts)).toEqual([
      { consumerGroup: 'stock', state: 'consumed', attempts: 4, at: 30 },
    ]);
  });

  test('of messages that were all cancelled nothing is to come', () => {
    expect(standingsOf(expectationsOfAll(['stock'], 2), 0b11, [])).toEqual([
      { consumerGroup: 'stock', state: 'consumed', attempts: 0 },
    ]);
  });

  test('one message given up is enough to have failed, whatever is still to come', () => {
    const failed = receipt({ message: 1, kind: 'failed', at: 20, attempts: 5, cause: 'no disk' });
    const later = receipt({ message: 2, kind: 'failed', at: 40, cause: 'full' });
    expect(standings(['stock'], 4, [receipt(), failed, later])).toEqual([
      { consumerGroup: 'stock', state: 'failed', attempts: 5, cause: 'no disk', at: 20 },
    ]);
  });

  test('N06: a group is looked at by the messages that name it, without those that were cancelled', () => {
    const expectations = [
      { consumerGroup: 'stock', messages: 0b001 },
      { consumerGroup: 'mail', messages: 0b110 },
    ];
    expect(standingsOf(expectations, 0, [receipt()])).toMatchObject([
      { consumerGroup: 'stock', state: 'consumed' },
      { consumerGroup: 'mail', state: 'waiting' },
    ]);
    const mailed = receipt({ consumerGroup: 'mail', message: 2 });
    expect(standingsOf(expectations, 0b010, [mailed])).toMatchObject([
      { consumerGroup: 'stock', state: 'waiting' },
      { consumerGroup: 'mail', state: 'consumed' },
    ]);
  });

  test('receipts of other groups say nothing of it', () => {
    expect(standings(['index', 'stock'], 1, [receipt()])).toMatchObject([
      { consumerGroup: 'index', state: 'waiting' },
      { consumerGroup: 'stock', state: 'consumed' },
    ]);
  });
});

test.each<[string, boolean, Partial<TransactionView>]>([
  ['is prepared', true, { state: 'prepared' }],
  ['is forwarded, and a group still to consume', true, { groups: [group('waiting')] }],
  ['misses one group, and another gave up', true, { groups: [group('failed'), group('waiting')] }],
  ['only misses groups that gave up', false, { groups: [group('failed'), group('consumed')] }],
  [
    'is closed',
    false,
    { closed: { at: 1, by: 'operator ann', reason: 'x' }, groups: [group('waiting')] },
  ],
  ['is parked', false, { state: 'parked', groups: [group('waiting')] }],
  ['has settled', false, { settled: true, state: 'rolledBack' }],
])('waiting makes sense or not: what %s', (_, makesSense, changes) => {
  const view = { settled: false, state: 'forwarded', groups: [], ...changes } as unknown;
  expect(mayStillSettle(view as TransactionView)).toBe(makesSense);
});

function group(state: 'waiting' | 'consumed' | 'failed') {
  return { consumerGroup: 'stock', state, attempts: 0 };
}
