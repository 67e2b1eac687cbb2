import { EscrowError, type StateName } from '@escrowmq/protocol';

/**
 * The seam under the store: one database, seen the same way whether it is SQLite in this process
 * or MySQL over a socket. The store's SQL is written once against it, in the subset that SQLite,
 * MySQL 8 and MariaDB 10.11 share; what differs is a `Dialect` of a few words.
 */
export type SqlValue = string | number | Buffer | null;

export interface Dialect {
  /** UTC milliseconds of the database's clock. */
  readonly now: string;
  /**
   * Stands after `escrow_transaction`: its rows are found by the ids that a statement names, and
   * never by another condition. Both planners preferred the index on what is due, which made a
   * verdict on one row read every prepared row there was.
   */
  readonly byId: string;
  /** Stands after another table: its rows are found by the primary key, in its order. */
  readonly byKey: string;
  /** Stands after `escrow_transaction`: the rows of a state are found by their index, if there is one. */
  byState(state: StateName): string;
  /**
   * So many rows of one state are sorted for a page of a search. Where there are more, the search
   * goes from the newest row to older ones until it has met enough of that state.
   */
  readonly rowsSortedMax: number;
  /** The list after `where id`, with the values that it binds; a list is never empty. */
  inIds(ids: readonly string[]): { list: string; values: readonly Buffer[] };
  /**
   * Selects (name, value, prepared_at): each state that has rows, with when the oldest of an open
   * one was prepared, then each counter.
   */
  readonly countsByState: string;
  /** Selects a row when there is a table of the name that it binds, which needs no right to it. */
  readonly tableNamed: string;
  /** Ends a SELECT that claims rows: others skip what it locked. Empty where one writer is alone. */
  readonly skipLocked: string;
  /** Ends a SELECT whose rows others may change only afterwards. Empty where one writer is alone. */
  readonly forUpdate: string;
}

export interface RowsToInsert {
  table: string;
  columns: readonly string[];
  rows: readonly (readonly SqlValue[])[];
  /** Per column an SQL expression with one `?`. @default plain `?` for all */
  expressions?: readonly string[];
  /** `ignore`: rows whose key is taken are left out. */
  onDuplicate: 'fail' | 'ignore';
}

/** A connection, or a transaction on one. */
export interface Sql {
  all<Row>(sql: string, values?: readonly SqlValue[]): Promise<Row[]>;
  /** Resolves with the number of rows that matched. */
  run(sql: string, values?: readonly SqlValue[]): Promise<number>;
  /** All rows or none. Rejects with `DuplicateKey` when a key is taken and `onDuplicate` is `fail`. */
  insertRows(insert: RowsToInsert): Promise<void>;
}

/**
 * Statements outside a transaction are repeated after a deadlock or a lost connection, so each must
 * be harmless when it runs twice. Rejects with `STORE_UNAVAILABLE` when that does not help, and with
 * `RowRefused` for what the database would take without one of the rows.
 */
export interface Database extends Sql {
  readonly dialect: Dialect;
  /** Bytes of values that one INSERT should hold; one row may be larger. */
  insertBytesMax(): number;
  /** What somebody who runs this database should know of it, as sentences; none is the rule. */
  caveats(needs: { transactionBytesMax: number }): Promise<string[]>;
  /**
   * All of `work` or nothing. Run again from the start after a deadlock or a lost connection, so
   * `work` must be repeatable: guarded updates, or rows with keys of their own.
   */
  transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T>;
  /** Holds a lock against other processes while schema changes run. */
  withMigrationLock<T>(work: (sql: Sql) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/**
 * A time that has not come, in the year 4199. Not null and not 0, because what a transaction's row
 * holds keeps its size while it is prepared, committed and forwarded: InnoDB and SQLite then change
 * it in place, which costs half of moving it. SQLite writes this number, like any time of ours, in
 * six bytes; it would write 0 in none.
 */
export const NEVER = 2 ** 46;

/** A multi-row INSERT with one duplicate fails whole; whoever sent it sorts out which. */
export class DuplicateKey extends Error {
  override readonly name = 'DuplicateKey';
}

/** The database answers, and says no to this user until somebody changes something there. */
export class StoreRefused extends EscrowError {
  constructor(message: string, options?: ErrorOptions) {
    super('STORE_UNAVAILABLE', message, options);
  }
}

/**
 * One of the rows is what the database does not take: too large for it, or a value that it refuses.
 * All others would be taken; whoever sent them sorts out which it is.
 */
export class RowRefused extends Error {
  override readonly name = 'RowRefused';
  readonly why: 'tooLarge' | 'badValue';

  constructor(why: 'tooLarge' | 'badValue', message: string, options?: ErrorOptions) {
    super(message, options);
    this.why = why;
  }
}

/** `?,?,?` for a list of `count`; a list is never empty. */
export const marks = (count: number): string => Array(count).fill('?').join(',');

export const idBytes = (id: string): Buffer => Buffer.from(id.replaceAll('-', ''), 'hex');

export function idText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
