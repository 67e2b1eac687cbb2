/**
 * As much of mysql2/promise as the SDK uses, by its shape: a service without mysql2 can compile
 * against this package, and one with it keeps the overloads of its own version.
 */
export interface Mysql2Queryable {
  /** Sends one statement, with its values written into it. */
  query(sql: string, values?: (string | number | null)[]): Promise<[unknown, unknown]>;
  /** Sends one statement, with its values written into it. */
  query(
    options: {
      /** The statement, with `?` for each value. */
      sql: string;
      [option: string]: unknown;
    },
    values?: (string | number | null)[],
  ): Promise<[unknown, unknown]>;
  /** Sends one statement as a prepared one. */
  execute(sql: string, values?: (string | number | null)[]): Promise<[unknown, unknown]>;
}

/** A connection of mysql2/promise. */
export interface Mysql2Connection extends Mysql2Queryable {
  /** Closes it at once. */
  destroy(): void;
  /** Gives it back to its pool. */
  release(): void;
}

/** A pool of mysql2/promise. */
export interface Mysql2Pool<C extends Mysql2Connection = Mysql2Connection> {
  /** Takes a connection out of the pool, or waits for one. */
  getConnection(): Promise<C>;
}

/**
 * What a callback gets: the statements of the transaction, with every overload that `C` has, and
 * nothing that could end it.
 */
export type Mysql2Transaction<C extends Mysql2Queryable = Mysql2Connection> = Readonly<
  Pick<C, 'execute' | 'query'>
>;
