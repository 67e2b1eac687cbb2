import { EscrowError } from '@escrowmq/protocol';
import type { Dialect, Executor, LocalDatabase, LocalTransaction, SqlValue } from '../database.js';
import { executorOn } from '../executor.js';
import { foreign, unknownDialect } from './layer-misuse.js';
import { managedDatabase } from './managed.js';
import { answersRows } from './rows.js';

/** Drizzle's `sql` template tag. */
export type DrizzleSql = (strings: TemplateStringsArray, ...values: SqlValue[]) => unknown;

/** A database of Drizzle, by what the SDK uses of it. */
export interface DrizzleDatabase<Tx> {
  /** Runs `work` in a transaction. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
}

/** A transaction of Drizzle: only these can be rolled back. */
export interface DrizzleTransaction {
  /** Throws what has Drizzle roll it back. */
  rollback(): never;
}

const ADAPTER = 'fromDrizzle';
const TAKES =
  "a drizzle database, or the tx that db.transaction hands to its callback, and drizzle's sql";

/** A transaction that you opened with Drizzle, and will end, yourself. */
export function fromDrizzle(tx: DrizzleTransaction, sql: DrizzleSql): LocalTransaction;
/**
 * A database behind Drizzle on MySQL, MariaDB or PostgreSQL, or on SQLite with an asynchronous
 * driver (libsql). Drizzle must have been given a pool. The callback of a transaction gets Drizzle's
 * own `tx`.
 *
 * @param sql the `sql` that drizzle-orm exports: what raw statements are made with
 * @throws {EscrowError} INVALID_CONFIGURATION for another database or object, and for a single
 *   connection where a pool is needed
 * @example
 * import { sql } from 'drizzle-orm';
 * await producer.transaction(fromDrizzle(db, sql), message, async (tx) => {
 *   await tx.insert(account).values({ id: 7 });
 * });
 */
export function fromDrizzle<Tx extends DrizzleTransaction>(
  db: DrizzleDatabase<Tx>,
  sql: DrizzleSql,
): LocalDatabase<Tx>;
export function fromDrizzle<Tx extends DrizzleTransaction>(
  given: DrizzleDatabase<Tx> | DrizzleTransaction,
  sql: DrizzleSql,
): LocalDatabase<Tx> | LocalTransaction {
  if (typeof given !== 'object' || given === null || !('transaction' in given)) {
    throw foreign(ADAPTER, TAKES, given);
  }
  if (typeof sql !== 'function') throw foreign(ADAPTER, TAKES, sql);
  const kinds = kindsOf(given);
  const dialect = dialectOf(kinds);
  refuseOneConnection(given);
  if (kinds.some((kind) => TRANSACTIONS.has(kind))) {
    const executor = executorOf(given, { dialect, sql });
    return { kind: 'transaction', dialect, layer: 'Drizzle', executor };
  }
  return managedDatabase<Tx>({
    on: given,
    dialect,
    layer: 'Drizzle',
    begin: (work) => beginOn(given, work),
    executor: (tx) => executorOf(tx, { dialect, sql }),
  });
}

/**
 * Drizzle lets a `tx` that was kept go on after its end: on a connection that is back in the pool,
 * and perhaps inside of somebody else's transaction. Every other layer refuses that by itself.
 */
async function beginOn<Tx extends DrizzleTransaction, T>(
  db: DrizzleDatabase<Tx>,
  work: (tx: Tx) => Promise<T>,
): Promise<T> {
  let opened: Partial<WithSession> | undefined;
  try {
    return await db.transaction((tx) => {
      opened = tx as Partial<WithSession>;
      return work(tx);
    });
  } finally {
    // What nested transactions have as well. Without a pool it would be the database's own.
    const session = opened?.session;
    if (session !== undefined && session !== (db as Partial<WithSession>).session) {
      session.prepareQuery = refuse;
    }
  }
}

interface WithSession {
  session: { prepareQuery: unknown };
}

function refuse(): never {
  throw new EscrowError(
    'TRANSACTION_MISUSED',
    'a statement was sent through a tx of Drizzle after its transaction had ended; await every statement inside the callback',
  );
}

/** Under this name Drizzle's classes say what they are, in every version and however bundled. */
const KIND = Symbol.for('drizzle:entityKind');

const DIALECTS: Record<string, Dialect> = {
  MySqlDatabase: 'mysql',
  PgDatabase: 'postgres',
  BaseSQLiteDatabase: 'sqlite',
};

const TRANSACTIONS = new Set(['MySqlTransaction', 'PgTransaction', 'SQLiteTransaction']);

/** What an object is, and what its classes extend. */
function kindsOf(given: object): string[] {
  const kinds: string[] = [];
  for (let proto = Object.getPrototypeOf(given); proto; proto = Object.getPrototypeOf(proto)) {
    const kind: unknown = proto.constructor[KIND];
    if (typeof kind === 'string') kinds.push(kind);
  }
  return kinds;
}

function dialectOf(kinds: string[]): Dialect {
  for (const kind of kinds) {
    const dialect = DIALECTS[kind];
    if (dialect !== undefined) return dialect;
  }
  throw unknownDialect(ADAPTER, kinds[0]);
}

/**
 * On a single connection a second transaction would begin inside the first. A driver that answers at
 * once can't wait for anything between BEGIN and COMMIT, and so not for a callback.
 */
function refuseOneConnection(given: object): void {
  if ('resultKind' in given && given.resultKind === 'sync') {
    throw foreign(
      ADAPTER,
      'on SQLite a database with an asynchronous driver (use fromSqlite with better-sqlite3)',
      given,
    );
  }
  const client: unknown = '$client' in given ? given.$client : undefined;
  if (typeof client !== 'object' || client === null) return;
  // A connection of mysql2, and a Client of pg.
  const isConnection =
    ('beginTransaction' in client && !('getConnection' in client)) || 'processID' in client;
  if (isConnection) {
    throw foreign(ADAPTER, 'a drizzle database that was made with a pool', client);
  }
}

/** What the databases and transactions of Drizzle have, each for its dialects. */
interface Runners {
  execute(query: unknown): PromiseLike<unknown>;
  all(query: unknown): PromiseLike<unknown>;
  run(query: unknown): PromiseLike<unknown>;
}

function executorOf(tx: object, { dialect, sql }: { dialect: Dialect; sql: DrizzleSql }): Executor {
  const runners = tx as Runners;
  return executorOn({
    layer: 'Drizzle',
    hooks: 'an option of the driver below it (nestTables, transform)',
    async send(text, values) {
      const parts = text.split('?');
      const query = sql(Object.assign(parts, { raw: parts }), ...values);
      if (dialect !== 'sqlite') return rowsOf(await runners.execute(query));
      return answersRows(text) ? runners.all(query) : runners.run(query);
    },
  });
}

/** mysql2 answers a pair of rows and fields, pg an object with rows, postgres.js the rows. */
function rowsOf(answer: unknown): unknown {
  if (Array.isArray(answer)) return Array.isArray(answer[0]) ? answer[0] : answer;
  return typeof answer === 'object' && answer !== null && 'rows' in answer ? answer.rows : answer;
}
