import { describe, expect, test } from '@jest/globals';
import { type Cancellable, cancelMessages } from '../../broker/src/domain/cancelling.js';
import { message } from '../support/store-fixtures.js';

const DECIDED = 1_000_000;
const NOW = DECIDED + 10_000;

/** Message 0 does not wait, 1 is due, 2 and 3 wait. */
const row = (changes: Partial<Cancellable> = {}): Cancellable => ({
  state: 'committed',
  undecided: false,
  messages: [
    message(),
    message({ delayMs: 10_000 }),
    message({ delayMs: 10_001 }),
    message({ deliverAt: NOW + 500 }),
  ],
  pending: 0b1111,
  unrouted: 0,
  cancelled: 0,
  decidedAt: DECIDED,
  ...changes,
});

describe('which messages may be cancelled', () => {
  test('those whose time has not come, guarded by the first of their times', () => {
    expect(cancelMessages(row(), [3, 2], NOW)).toEqual({
      kind: 'cancel',
      mask: 0b1100,
      beforeAt: NOW + 1,
    });
    expect(cancelMessages(row(), undefined, NOW)).toEqual(cancelMessages(row(), [2, 3], NOW));
  });

  test('not at the due time itself', () => {
    expect(cancelMessages(row(), [2], NOW)).toMatchObject({ kind: 'cancel' });
    expect(cancelMessages(row(), [2], NOW + 1)).toMatchObject({
      kind: 'refuse',
      refusal: { messages: [{ number: 2, why: 'due' }] },
    });
  });

  test.each([
    ['notDelayed', 0, {}],
    ['due', 1, {}],
    ['forwarded', 2, { pending: 0b1001 }],
    ['unrouted', 2, { pending: 0b1001, unrouted: 0b0100 }],
    ['undecided', 2, { state: 'prepared', undecided: true }],
    ['undecided', 2, { state: 'parked', undecided: true }],
    ['rolledBack', 2, { state: 'rolledBack' }],
  ] as const)('%s: it can not be, alone or with another', (why, number, changes) => {
    const refused = (numbers: number[]) => cancelMessages(row(changes), numbers, NOW);
    expect(refused([number])).toEqual({
      kind: 'refuse',
      refusal: {
        kind: 'notCancellable',
        state: 'committed',
        ...('state' in changes ? { state: changes.state } : {}),
        messages: [{ number, why }],
      },
    });
    expect(refused([3, number])).toMatchObject({ kind: 'refuse' });
  });

  test('what is cancelled already is no obstacle', () => {
    const again = row({ pending: 0b1011, cancelled: 0b0100 });
    expect(cancelMessages(again, [2], NOW)).toEqual({ kind: 'keep' });
    expect(cancelMessages(again, [2, 3], NOW)).toMatchObject({ kind: 'cancel', mask: 0b1000 });
    expect(cancelMessages(again, [2, 1], NOW)).toMatchObject({ kind: 'refuse' });
  });

  test('without numbers, nothing that waits is a refusal unless some were cancelled before', () => {
    expect(cancelMessages(row({ pending: 0b0011 }), undefined, NOW)).toMatchObject({
      kind: 'refuse',
      refusal: {
        messages: [
          { number: 0, why: 'notDelayed' },
          { number: 1, why: 'due' },
          { number: 2, why: 'forwarded' },
          { number: 3, why: 'forwarded' },
        ],
      },
    });
    const before = row({ pending: 0b0011, cancelled: 0b1000 });
    expect(cancelMessages(before, undefined, NOW)).toEqual({ kind: 'keep' });
  });

  test('a number that is not there refuses all of them', () => {
    expect(cancelMessages(row(), [2, 4], NOW)).toEqual({
      kind: 'refuse',
      refusal: { kind: 'noSuchMessage', numbers: [4], messageCount: 4 },
    });
  });
});
