import { EscrowError } from '@escrowmq/protocol';
import type { DataRefusal } from '../domain/open-messages.js';

/** A commit whose data does not fit what prepare left open. Nothing is decided. */
export function dataRefused(id: string, refusal: DataRefusal): EscrowError {
  switch (refusal.kind) {
    case 'missing':
      return new EscrowError(
        'MESSAGE_DATA_MISSING',
        `transaction ${id} waits for the data of ${named(refusal.numbers)}, which prepare left open; ` +
          'commit it with messageData that has the data of each',
        { details: { id, missing: refusal.numbers } },
      );
    case 'notOpen':
      return new EscrowError(
        'INVALID_REQUEST',
        `the commit of ${id} brings data for ${named(refusal.numbers)}, which prepare did not leave open; ` +
          'messageData is for messages prepared with dataAtCommit',
        {
          fields: refusal.numbers.map((number) => ({
            path: 'messageData',
            message: `message ${number} is not open`,
          })),
        },
      );
    case 'tooLarge':
      return new EscrowError(
        'BODY_TOO_LARGE',
        `with the data of its commit, transaction ${id} would have ${refusal.bytes} bytes of JSON; ` +
          `at most ${refusal.bytesMax} (transactionBytesMax) are allowed`,
        { details: { id, bytesMax: refusal.bytesMax } },
      );
    case 'notStorable':
      return new EscrowError(
        refusal.why === 'tooLarge' ? 'BODY_TOO_LARGE' : 'INVALID_REQUEST',
        `the store does not take transaction ${id} with the data of its commit: ${refusal.detail}`,
        { details: { id } },
      );
  }
}

const named = (numbers: readonly number[]): string =>
  `message${numbers.length === 1 ? '' : 's'} ${numbers.join(', ')}`;
