import { EscrowError, type MessageData } from '@escrowmq/protocol';
import type { HeldMessages } from './held-messages.js';

/**
 * Supplies the data of a message that was announced with `dataAtCommit: true`, such as an id that
 * the database has just made.
 *
 * @param data any JSON
 * @param number of the message among those of its transaction, from 0
 *   @default the only one that is open
 * @throws {EscrowError} TRANSACTION_MISUSED when that message is not open, or has its data already
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
}: Pick<HeldMessages, 'id' | 'openNumbers'>): SuppliedData {
  const byNumber = new Map<number, MessageData>();
  const all = () => (openNumbers.length === 0 ? undefined : [...byNumber.values()]);
  return {
    supply(data, number = openNumbers[0] ?? 0) {
      if (!openNumbers.includes(number)) {
        throw misused(id, `message ${number} was not announced with dataAtCommit: true`);
      }
      if (byNumber.has(number)) throw misused(id, `message ${number} has its data already`);
      if (data === undefined) throw misused(id, `the data of message ${number} are undefined`);
      byNumber.set(number, { number, data });
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

function misused(id: string, mistake: string): EscrowError {
  return new EscrowError('TRANSACTION_MISUSED', `transaction ${id}: ${mistake}`, {
    details: { id, outcome: 'rollback' },
  });
}
