import { describe, expect, test } from '@jest/globals';
import { forwarded } from '../../broker/src/domain/decide.js';
import type { State } from '../../broker/src/domain/transaction.js';
import { createTopicTrouble } from '../../broker/src/engine/topic-trouble.js';
import { recordingObserver } from '../support/engine-fakes.js';

const MESSAGE = { topic: 'orders', ifUnrouted: 'retry' } as const;
const transaction = (attempts: number) => ({ id: 'id', producerGroup: 'shop', attempts });

describe('N05: what is wrong with a topic is said at its first message', () => {
  test.each(['returned', 'nacked', 'refused'] as const)('%s', (kind) => {
    const observer = recordingObserver();
    createTopicTrouble(observer).saw(transaction(0), MESSAGE, { kind, detail: 'why' });
    expect(observer.warnings).toEqual([
      [
        expect.stringContaining('of a topic, which are tried again'),
        { topic: 'orders', transactionId: 'id', producerGroup: 'shop', detail: 'why' },
        'orders',
      ],
    ]);
    expect(observer.alerts).toEqual([]);
  });

  test('not what another interrupted, nor what may be dropped', () => {
    const observer = recordingObserver();
    const trouble = createTopicTrouble(observer);
    trouble.saw(transaction(0), MESSAGE, { kind: 'interrupted', detail: '' });
    trouble.saw(transaction(0), MESSAGE, { kind: 'unconfirmed', detail: '' });
    const dropped = { ...MESSAGE, ifUnrouted: 'drop' } as const;
    trouble.saw(transaction(0), dropped, { kind: 'returned', detail: '' });
    expect(observer.warnings).toEqual([]);
  });
});

describe('U21: a topic of which one queue is full', () => {
  const nacked = { kind: 'nacked', detail: 'a queue of topic orders is full or failed' } as const;

  test('raises one alert an hour, at the fifth attempt of any message', () => {
    const observer = recordingObserver();
    let nowMs = 0;
    const trouble = createTopicTrouble(observer, () => nowMs);
    for (const attempts of [0, 1, 2, 3]) trouble.saw(transaction(attempts), MESSAGE, nacked);
    expect(observer.alerts).toEqual([]);
    for (const attempts of [4, 5, 9, 30]) trouble.saw(transaction(attempts), MESSAGE, nacked);
    expect(observer.alerts).toMatchObject([{ kind: 'topicNacked', topic: 'orders' }]);
    trouble.saw(transaction(4), { ...MESSAGE, topic: 'users' }, nacked);
    expect(observer.alerts).toHaveLength(2);
    nowMs = 3_600_000;
    trouble.saw(transaction(30), MESSAGE, nacked);
    expect(observer.alerts).toHaveLength(3);
  });

  test('gives its other queues at most 20 copies of a message in the first hour, and 12 in each later one', () => {
    let state: State = { state: 'committed', pending: 1, attempts: 0, dueAt: 0 };
    const copiesAt: number[] = [];
    while (state.state === 'committed' && state.dueAt < 3 * 3_600_000) {
      const now = state.dueAt;
      copiesAt.push(now);
      const policy = { undeliverableAttemptsMax: 20 };
      const outcome = forwarded(state, { done: 0, failure: 'nacked' }, policy, now);
      if (outcome.kind !== 'move') throw new Error('a nack always goes on');
      state = outcome.to;
    }
    const inHour = (hour: number) =>
      copiesAt.filter((at) => Math.floor(at / 3_600_000) === hour).length;
    expect([0, 1, 2].map(inHour)).toEqual([20, 12, 12]);
    expect(copiesAt.filter((at) => at <= 16_000)).toHaveLength(5);
  });
});
