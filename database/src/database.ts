import type { Columns, RowOf } from './read-rows.js';

/**
 * A producer's own database, as the SDK uses it: three dialects of SQL, reached through whatever the
 * service itself uses, a driver, a query builder or an ORM. Each of these has a small adapter
 * (adapters/), which says how to open a transaction there and how to send a statement in it. What
 * those statements are and what their answers mean is the same for all: barrier-sql.ts.
 */
export type Dialect = 'mysql' | 'postgres' | 'sqlite';

/** Text and numbers only: every driver and every ORM passes these on alike. */
export type SqlValue = string | number | null;

/** Statements on one connection, in the order they are sent. */
export interface Executor {
  /**
   * Sends what answers no rows, or none that matter.
   *
   * @param sql one statement, with `?` for each value in every dialect, and no `?` elsewhere
   * @throws the layer's own error; server-errors.ts knows what it means
   * @throws {EscrowError} DATABASE_UNAVAILABLE, with the layer's error as the cause, where that says
   *   that the database is away
   */
  execute(sql: string, values?: readonly SqlValue[]): Promise<unknown>;
  /**
   * Sends a select and reads its rows.
   *
   * @param sql a select, like that of `execute`
   * @param columns of the select, in its order
   * @returns its rows, free of what the layer is set to do to rows
   * @throws like `execute`; INVALID_CONFIGURATION where the columns did not get through
   */
  select<C extends Columns>(
    sql: string,
    columns: C,
    values?: readonly SqlValue[],
  ): Promise<RowOf<C>[]>;
}

/** All times are milliseconds. */
export interface TransactionLimits {
  /** For getting a connection; late ones go back unused. */
  connectionTimeoutMs: number;
  /** For the answer to COMMIT; after that its outcome is unknown. */
  commitTimeoutMs: number;
}

/**
 * Proves that a local transaction is still the one that wrote its barrier row. A callback may have
 * ended it without knowing: by DDL, which commits on MySQL, by swallowing a deadlock, by a COMMIT of
 * its own.
 */
export interface TransactionGuard {
  /** Called right after the barrier row was written. */
  arm(): Promise<void>;
  /**
   * Called before COMMIT: whether the transaction is still the one that was armed.
   *
   * @returns false when the transaction ended under the callback's hands
   * @throws when the connection is lost
   */
  holds(): Promise<boolean>;
  /**
   * Called instead of `holds` when the transaction is to be given up, before the layer rolls back.
   *
   * @param limitMs for the connection's answer; the layer closes one that gives none
   * @returns true when nothing of it can become durable any more; false when a check must decide,
   *   also where the connection did not answer in time
   */
  isUndone(limitMs: number): Promise<boolean>;
}

/** A local transaction that is open. */
export interface OpenTransaction<Tx> {
  /** The layer's own handle: what a callback gets. */
  readonly tx: Tx;
  /** The SDK's own statements in it. */
  readonly executor: Executor;
  /** Proves that it is still open, and still the same. */
  readonly guard: TransactionGuard;
  /**
   * What the callback sent through `tx`, where the adapter can see it. Statements after `refuse`
   * are refused with its error, made when it is needed; those sent before go on.
   * @default the adapter can't see them
   */
  readonly statements?: {
    /** How many were sent so far. */
    readonly sent: number;
    /** How many of them have no answer yet. */
    readonly unanswered: number;
    /** Refuses what is sent from now on. */
    refuse(error: () => Error): void;
  };
}

/** A database whose transactions the SDK opens and ends itself. Adapters make one. */
export interface LocalDatabase<Tx> {
  /** Tells it from a `LocalTransaction`. */
  readonly kind: 'database';
  /** Which SQL it takes. */
  readonly dialect: Dialect;
  /** As its users call it: `mysql2`, `Knex`. For messages. */
  readonly layer: string;
  /**
   * The layer's own object, such as the pool: two databases with the same one are the same.
   * @default the database itself
   */
  readonly on?: object;
  /**
   * Runs `work` in a transaction on a connection of its own. COMMIT is sent when `work` has
   * resolved, and ROLLBACK, or the connection closed, when it has rejected.
   *
   * @returns what `work` resolved to, once COMMIT was answered
   */
  transaction<T>(
    work: (open: OpenTransaction<Tx>) => Promise<T>,
    limits: TransactionLimits,
  ): Promise<T>;
  /**
   * Runs `work` on a connection of its own, outside of any transaction of the service. What it
   * wrote is durable when this has resolved; whether each statement commits or all of them at the
   * end is the adapter's business.
   */
  session<T>(work: (executor: Executor) => Promise<T>, limits: TransactionLimits): Promise<T>;
}

/** A transaction that the caller opened, and will end, himself. Adapters make one. */
export interface LocalTransaction {
  /** Tells it from a `LocalDatabase`. */
  readonly kind: 'transaction';
  /** Which SQL it takes. */
  readonly dialect: Dialect;
  /** As its users call it: `mysql2`, `Knex`. For messages. */
  readonly layer: string;
  /** The SDK's own statements in it. */
  readonly executor: Executor;
}
