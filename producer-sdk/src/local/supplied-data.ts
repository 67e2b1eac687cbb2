import { EscrowError, type MessageData, obstacleIn, shownPath } from '@escrowmq/protocol';
import { tooLarge } from '../client/operation-json.js';
import type { HeldMessages } from './held-messages.js';

/**
 * Supplies the data of a message that was announced with `dataAtCommit: true`, such as an id that
 * the database has just made.
 *
 * It is taken as it is now: what the caller changes in it afterwards does not travel.
 *
 * @param data any JSON
 * @param number of the message among those of its transaction, from 0
 *   @default the only one that is open
 * @throws {EscrowError} TRANSACTION_MISUSED when that message is not open, or has its data already;
 *   INVALID_REQUEST for data that can't travel, with the place in `fields`; BODY_TOO_LARGE when the
 *   transaction would be larger than `transactionBytesMax` with it
 */
export type SupplyData = (data: unknown, number?: number) => void;

/** What a callback supplied for the messages whose data were left open. */
export interface SuppliedData {
  readonly supply: SupplyData;
  /**
   * @returns all of it; `undefined` when nothing was left open
   * @throws {EscrowError} TRANSACTION_MISUSED when a message is still open
   */
  complete(): MessageData[] | undefined;
  /** What was supplied so far; `undefined` when nothing was left open. */
  all(): MessageData[] | undefined;
}

export function createSuppliedData({
  id,
  openNumbers,
  size,
}: Pick<HeldMessages, 'id' | 'openNumbers' | 'size'>): SuppliedData {
  const byNumber = new Map<number, MessageData>();
  // What is refused here is refused before the local COMMIT: after it, nobody could take it back.
  let bytes = size.bytes;
  const all = () => (openNumbers.length === 0 ? undefined : [...byNumber.values()]);
  return {
    supply(data, number = openNumbers[0] ?? 0) {
      if (!openNumbers.includes(number)) {
        throw misused(id, `message ${number} was not announced with dataAtCommit: true`);
      }
      if (byNumber.has(number)) throw misused(id, `message ${number} has its data already`);
      if (data === undefined) throw misused(id, `the data of message ${number} are undefined`);
      const json = written(id, number, data);
      const dataBytes = Buffer.byteLength(json);
      if (bytes + dataBytes > size.bytesMax) {
        throw tooLarge(`transaction ${id}, with its supplied data,`, bytes + dataBytes, size);
      }
      bytes += dataBytes;
      byNumber.set(number, { number, data: JSON.parse(json) });
    },
    complete() {
      const missing = openNumbers.filter((number) => !byNumber.has(number));
      if (missing.length === 0) return all();
      throw misused(
        id,
        `its callback supplied no data for message ${missing.join(', ')}; call supplyData(data${missing.length > 1 ? ', number' : ''}) before it ends`,
      );
    },
    all,
  };
}

/** @throws {EscrowError} INVALID_REQUEST */
function written(id: string, number: number, data: unknown): string {
  const obstacle = obstacleIn(data);
  if (obstacle === undefined) return JSON.stringify(data);
  const path = shownPath(obstacle);
  const { message } = obstacle;
  throw new EscrowError(
    'INVALID_REQUEST',
    `the data supplied for message ${number} of ${id} can not travel: ${path.length === 0 ? 'it' : path.join('.')} ${message}`,
    { fields: [{ path: ['data', ...path].join('.'), message }] },
  );
}

function misused(id: string, mistake: string): EscrowError {
  return new EscrowError('TRANSACTION_MISUSED', `transaction ${id}: ${mistake}`, {
    details: { id, outcome: 'rollback' },
  });
}
