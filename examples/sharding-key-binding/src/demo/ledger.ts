import type { User } from '../indexes.js';

/** What the demo was told or did, to be compared with the databases in the end. */
export interface Ledger {
  /** Users that must be there: acknowledged, or committed by a producer that was killed then. */
  registered: User[];
  /** Transactions that must have been rolled back. */
  rolledBack: number;
  /** Index entries that can't be written, because another user has the value. */
  conflicts: number;
}

export const emptyLedger = (): Ledger => ({ registered: [], rolledBack: 0, conflicts: 0 });
