import { describe, expect, test } from '@jest/globals';
import type { OverdueSettlement } from '../../broker/src/domain/closing.js';
import type { LateReceipt } from '../../broker/src/domain/late-receipts.js';
import { createLateReceipts } from '../../broker/src/engine/late-receipts.js';
import { tellOverdueOnce } from '../../broker/src/engine/retention.js';
import { currentId, recordingObserver } from '../support/engine-fakes.js';

const DAY_MS = 86_400_000;

describe('U05: receipts that come too late', () => {
  function late() {
    const observer = recordingObserver();
    let time = 0;
    const { tell } = createLateReceipts({ observer, now: () => time });
    const one = (changes: Partial<LateReceipt> = {}): LateReceipt => ({
      ...{ why: 'purged', id: currentId(), consumerGroup: 'stock', kind: 'failed' },
      ...changes,
    });
    return { observer, tell, one, pass: (ms: number) => (time += ms) };
  }

  test('a group that gave up on what is gone is alerted, with how many and which', () => {
    const { observer, tell, one } = late();
    const receipts = Array.from({ length: 12 }, () => one());
    tell(receipts);
    expect(observer.alerts).toEqual([
      {
        kind: 'lateReceipts',
        consumerGroup: 'stock',
        count: 12,
        examples: receipts.slice(0, 10).map(({ id }) => id),
        detail: expect.stringMatching(/^stock gave up on messages of transactions .* purged/),
      },
    ]);
    expect(observer.counts).toHaveLength(12);
  });

  test('a group that consumed what has settled says nothing new: counted, and no more', () => {
    const { observer, tell, one } = late();
    tell([one({ kind: 'consumed' }), one({ kind: 'consumed', why: 'unknown' })]);
    expect([...observer.alerts, ...observer.warnings]).toEqual([]);
    expect(observer.counts).toEqual([
      ['lateReceipts', { kind: 'consumed', reason: 'purged' }, 1],
      ['lateReceipts', { kind: 'consumed', reason: 'unknown' }, 1],
    ]);
  });

  test('each cause is alerted once a minute, what comes in between is a warning', () => {
    const { observer, tell, one, pass } = late();
    tell([one(), one({ why: 'closed', kind: 'consumed' }), one({ consumerGroup: 'mail' })]);
    expect(observer.alerts).toHaveLength(3);
    tell([one()]);
    pass(59_999);
    tell([one()]);
    expect(observer.alerts).toHaveLength(3);
    expect(observer.warnings).toHaveLength(2);
    pass(1);
    tell([one()]);
    expect(observer.alerts).toHaveLength(4);
  });

  test('made-up groups neither fill the memory nor the alerts', () => {
    const { observer, tell, one, pass } = late();
    tell(Array.from({ length: 1_000 }, (_, n) => one({ consumerGroup: `group-${n}` })));
    expect(observer.alerts).toHaveLength(200);
    expect(observer.warnings).toHaveLength(800);
    pass(60_000);
    tell([one({ consumerGroup: 'group-999' })]);
    expect(observer.alerts).toHaveLength(201);
  });
});

describe('U05: transactions that wait for a group for long', () => {
  const overdue = (changes: Partial<OverdueSettlement> = {}): OverdueSettlement => ({
    ...{ id: currentId(), producerGroup: 'shop', topics: ['order'], waitingFor: ['stock'] },
    ...changes,
  });
  async function told(batches: OverdueSettlement[][]) {
    const observer = recordingObserver();
    const asked: { olderThanMs: number; limit: number }[] = [];
    const count = await tellOverdueOnce({
      store: {
        async tellOverdue(search, tell) {
          asked.push(search);
          const batch = batches.shift() ?? [];
          if (batch.length > 0) tell(batch);
          return batch.length;
        },
      },
      unsettledAlertMs: 30 * DAY_MS,
      observer,
      stopping: () => false,
    });
    return { observer, asked, count };
  }

  test('one alert for each producer group and group that is waited for', async () => {
    const many = Array.from({ length: 12 }, () => overdue());
    const both = overdue({ topics: ['order', 'audit'], waitingFor: ['stock', 'mail'] });
    const { observer, asked, count } = await told([
      [...many, both, overdue({ producerGroup: 'b' })],
    ]);
    expect(count).toBe(14);
    expect(asked).toEqual([{ olderThanMs: 30 * DAY_MS, limit: 2_000 }]);
    expect(observer.alerts).toEqual([
      {
        kind: 'settlementOverdue',
        producerGroup: 'shop',
        consumerGroup: 'stock',
        count: 13,
        examples: many.slice(0, 10).map(({ id }) => id),
        detail: expect.stringContaining(
          '13 transactions forwarded more than 30 days ago (topics: order, audit)',
        ),
      },
      expect.objectContaining({ consumerGroup: 'mail', count: 1, examples: [both.id] }),
      expect.objectContaining({ producerGroup: 'b', consumerGroup: 'stock', count: 1 }),
    ]);
  });

  test('a full batch is followed by another', async () => {
    const full = Array.from({ length: 2_000 }, () => overdue());
    const { asked, count } = await told([full, [overdue()]]);
    expect([asked.length, count]).toEqual([2, 2_001]);
  });
});
