import { mayStillSettle, type TransactionView } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { type KeptReceipt, standingsOf } from '../../broker/src/domain/group-standing.js';

const receipt = (changes: Partial<KeptReceipt> = {}): KeptReceipt => ({
  consumerGroup: 'stock',
  message: 0,
  kind: 'consumed',
  at: 10,
  ...changes,
});

describe('what became of a transaction in a group', () => {
  test('without a receipt for every message it waits', () => {
    expect(standingsOf([], 1, [])).toEqual([]);
    expect(standingsOf(['stock'], 2, [])).toEqual([
      { consumerGroup: 'stock', state: 'waiting', attempts: 0 },
    ]);
    expect(standingsOf(['stock'], 2, [receipt({ attempts: 3 })])).toEqual([
      { consumerGroup: 'stock', state: 'waiting', attempts: 3 },
    ]);
  });

  test('it is consumed when its last message was', () => {
    const receipts = [
      receipt({ at: 30, attempts: 1 }),
      receipt({ message: 1, at: 20, attempts: 4 }),
    ];
    expect(standingsOf(['stock'], 2, receipts)).toEqual([
      { consumerGroup: 'stock', state: 'consumed', attempts: 4, at: 30 },
    ]);
  });

  test('of messages that were all cancelled nothing is to come', () => {
    expect(standingsOf(['stock'], 0, [])).toEqual([
      { consumerGroup: 'stock', state: 'consumed', attempts: 0 },
    ]);
  });

  test('one message given up is enough to have failed, whatever is still to come', () => {
    const failed = receipt({ message: 1, kind: 'failed', at: 20, attempts: 5, cause: 'no disk' });
    const later = receipt({ message: 2, kind: 'failed', at: 40, cause: 'full' });
    expect(standingsOf(['stock'], 4, [receipt(), failed, later])).toEqual([
      { consumerGroup: 'stock', state: 'failed', attempts: 5, cause: 'no disk', at: 20 },
    ]);
  });

  test('receipts of other groups say nothing of it', () => {
    expect(standingsOf(['index', 'stock'], 1, [receipt()])).toMatchObject([
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
  ['is parked', false, { state: 'parked', groups: [group('waiting')] }],
  ['has settled', false, { settled: true, state: 'rolledBack' }],
])('waiting makes sense or not: what %s', (_, makesSense, changes) => {
  const view = { settled: false, state: 'forwarded', groups: [], ...changes } as unknown;
  expect(mayStillSettle(view as TransactionView)).toBe(makesSense);
});

function group(state: 'waiting' | 'consumed' | 'failed') {
  return { consumerGroup: 'stock', state, attempts: 0 };
}
