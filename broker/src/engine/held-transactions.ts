import type { NewTransaction } from '../domain/transaction.js';
import { type ToForward, toForward } from './forward-round.js';

/**
 * Half messages kept in memory until their verdict, so that most commits forward without reading
 * the store. Only a shortcut: what is not here is read. Bounded by bytes, oldest out first.
 */
export interface HeldTransactions {
  put(transaction: NewTransaction): void;
  /** Hands it out, all its messages pending, and forgets it. */
  take(id: string): ToForward | undefined;
}

/** What an entry costs beside its messages: the object, its id and its place in the map. */
const ENTRY_OVERHEAD_BYTES = 500;

/**
 * Emptied when it is taken. V8 keeps the tables that a busy map has outgrown, and all they ever
 * held, until it collects everything; so what they hold is this and not the transaction.
 */
interface Entry {
  transaction: ToForward | undefined;
  bytes: number;
}

export function createHeldTransactions(bytesMax: number): HeldTransactions {
  const held = new Map<string, Entry>();
  let bytes = 0;

  function take(id: string): ToForward | undefined {
    const entry = held.get(id);
    if (entry?.transaction === undefined) return undefined;
    const { transaction } = entry;
    entry.transaction = undefined;
    held.delete(id);
    bytes -= entry.bytes;
    return transaction;
  }

  return {
    take,
    put(transaction) {
      take(transaction.id);
      const entry = {
        transaction: toForward(transaction),
        bytes: transaction.bytes + ENTRY_OVERHEAD_BYTES,
      };
      held.set(transaction.id, entry);
      bytes += entry.bytes;
      if (bytes <= bytesMax) return;
      for (const id of held.keys()) {
        take(id);
        if (bytes <= bytesMax) return;
      }
    },
  };
}
