import type { NewTransaction } from '../domain/transaction.js';

/**
 * Half messages kept in memory until their verdict, so that most commits forward without reading
 * the store. Only a shortcut: what is not here is read. Bounded by bytes, oldest out first.
 */
export interface HeldTransactions {
  put(transaction: NewTransaction): void;
  /** Hands it out and forgets it. */
  take(id: string): NewTransaction | undefined;
}

/** What an entry costs beside its messages: the object, its id and its place in the map. */
const ENTRY_OVERHEAD_BYTES = 500;

/**
 * Emptied when it is taken. V8 keeps the tables that a busy map has outgrown, and all they ever
 * held, until it collects everything; so what they hold is this and not the transaction.
 */
interface Entry {
  transaction: NewTransaction | undefined;
}

export function createHeldTransactions(bytesMax: number): HeldTransactions {
  const held = new Map<string, Entry>();
  let bytes = 0;

  function take(id: string): NewTransaction | undefined {
    const entry = held.get(id);
    if (entry?.transaction === undefined) return undefined;
    const { transaction } = entry;
    entry.transaction = undefined;
    held.delete(id);
    bytes -= transaction.bytes + ENTRY_OVERHEAD_BYTES;
    return transaction;
  }

  return {
    take,
    put(transaction) {
      take(transaction.id);
      held.set(transaction.id, { transaction });
      bytes += transaction.bytes + ENTRY_OVERHEAD_BYTES;
      for (const id of held.keys()) {
        if (bytes <= bytesMax) break;
        take(id);
      }
    },
  };
}
