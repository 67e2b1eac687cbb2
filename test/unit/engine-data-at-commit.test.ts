import { EscrowError } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { DataRefusal } from '../../broker/src/domain/open-messages.js';
import { currentId } from '../support/engine-fakes.js';
import { prepareRequest, takingIn, verdictOn } from '../support/intake-fakes.js';

const open = { topic: 'user', dataAtCommit: true };

async function refusalOf(refusal: DataRefusal): Promise<EscrowError> {
  const { intake } = takingIn({ decide: async () => [{ kind: 'refused', refusal }] });
  try {
    await intake.decide(verdictOn(currentId(), 'commit'));
  } catch (error) {
    if (error instanceof EscrowError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('data at commit', () => {
  test('an open transaction is not held: whoever forwards it reads it filled', async () => {
    const { intake, held, moved } = takingIn();
    const request = prepareRequest({ messages: [{ topic: 'user', data: 1 }, open] });
    await intake.prepare(request, {});
    const supplied = { data: [{ number: 1, data: 2 }], bytesMax: 1_000 };
    await intake.decide({ ...verdictOn(request.id!, 'commit'), supplied });
    expect(held.take(request.id!)).toBeUndefined();
    expect(moved).toMatchObject([{ ids: [request.id] }]);
  });

  test('a transaction with its data is held as ever', async () => {
    const { intake, held } = takingIn();
    const request = prepareRequest();
    await intake.prepare(request, {});
    expect(held.take(request.id!)?.messages).toEqual(request.messages);
  });

  test('a commit without the data is told which messages wait for it', async () => {
    const error = await refusalOf({ kind: 'missing', numbers: [0, 2] });
    expect(error).toMatchObject({ code: 'MESSAGE_DATA_MISSING', details: { missing: [0, 2] } });
    expect(error.message).toContain('messages 0, 2');
  });

  test('data for a message that is not open is named', async () => {
    const error = await refusalOf({ kind: 'notOpen', numbers: [1] });
    expect(error).toMatchObject({
      code: 'INVALID_REQUEST',
      fields: [{ path: 'messageData', message: 'message 1 is not open' }],
    });
  });

  test('data that makes the transaction too large is told the limit', async () => {
    const error = await refusalOf({ kind: 'tooLarge', bytes: 2_000, bytesMax: 1_000 });
    expect(error).toMatchObject({ code: 'BODY_TOO_LARGE', details: { bytesMax: 1_000 } });
    expect(error.message).toContain('transactionBytesMax');
  });
});
