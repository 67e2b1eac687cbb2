import { describe, expect, test } from '@jest/globals';
import type { Cancel, CancelResult } from '../../broker/src/domain/cancelling.js';
import { createCancel } from '../../broker/src/engine/cancel.js';
import { newId } from '../support/store-fixtures.js';

const ID = newId();

function cancelling(result: CancelResult) {
  const asked: Cancel[] = [];
  const cancel = createCancel({
    store: {
      async cancel(request) {
        asked.push(request);
        return result;
      },
    },
  });
  return { cancel, asked };
}

const refusal = (result: CancelResult) =>
  cancelling(result)
    .cancel(ID, { reason: 'x' }, undefined)
    .catch((error) => error);

describe('cancel', () => {
  test('it answers with all that is cancelled, up to the last of 32', async () => {
    const { cancel, asked } = cancelling({
      kind: 'cancelled',
      state: 'committed',
      cancelled: 2 ** 31 + 0b101,
    });
    expect(await cancel(ID, { messages: [0, 31], reason: 'late' }, 'accounts')).toEqual({
      id: ID,
      state: 'committed',
      cancelled: [0, 2, 31],
    });
    expect(asked).toEqual([
      { id: ID, producerGroup: 'accounts', numbers: [0, 31], by: 'producer', reason: 'late' },
    ]);
  });

  test('an operator is on record by name', async () => {
    const { cancel, asked } = cancelling({ kind: 'cancelled', state: 'forwarded', cancelled: 1 });
    await cancel(ID, { operator: 'ann', reason: 'late' }, undefined);
    expect(asked).toMatchObject([{ by: 'operator ann', reason: 'late' }]);
  });

  test('what can not be cancelled is named with the reason of each', async () => {
    const messages = [
      { number: 1, why: 'due' },
      { number: 4, why: 'forwarded' },
    ] as const;
    const refused = {
      kind: 'notCancellable',
      state: 'committed',
      messages,
    } as const;
    const error = await refusal({ kind: 'refused', refusal: refused });
    expect(error).toMatchObject({
      code: 'MESSAGE_NOT_CANCELLABLE',
      details: { id: ID, state: 'committed', notCancellable: messages },
    });
    expect(error.message).toContain('message 1 has come due, message 4 has left');
  });

  test('what has no decision is to be rolled back', async () => {
    const messages = [{ number: 0, why: 'undecided' as const }];
    const refused = { kind: 'notCancellable', state: 'prepared', messages } as const;
    const error = await refusal({ kind: 'refused', refusal: refused });
    expect(error.code).toBe('MESSAGE_NOT_CANCELLABLE');
    expect(error.message).toContain('roll the transaction back');
  });

  test.each([
    ['unknown', { kind: 'unknown' }, 'TRANSACTION_NOT_FOUND', ID],
    [
      'purged',
      { kind: 'refused', refusal: { kind: 'purged', state: 'forwarded' } },
      'MESSAGE_NOT_CANCELLABLE',
      'purged',
    ],
    [
      'of fewer messages',
      {
        kind: 'refused',
        refusal: { kind: 'noSuchMessage', numbers: [2, 3], messageCount: 2 },
      },
      'INVALID_REQUEST',
      'no message 2, 3',
    ],
  ] as const)('a transaction that is %s', async (_, result, code, words) => {
    const error = await refusal(result as CancelResult);
    expect(error.code).toBe(code);
    expect(error.message).toContain(words);
  });
});
