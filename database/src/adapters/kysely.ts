import type { CompiledQuery, Kysely, Transaction } from 'kysely';
import type { Dialect, Executor, LocalDatabase, LocalTransaction } from '../database.js';
import { executorOn } from '../executor.js';
import { ended, foreign, unknownDialect } from './layer-misuse.js';
import { managedDatabase } from './managed.js';
import { numbered } from './placeholders.js';

const ADAPTER = 'fromKysely';
const TAKES = 'a Kysely instance, or the trx that db.transaction().execute hands to its callback';

/** A transaction that you opened with Kysely, and will end, yourself; a controlled one as well. */
export function fromKysely<DB>(trx: Transaction<DB>): LocalTransaction;
/**
 * A database behind Kysely on MySQL, MariaDB, PostgreSQL or SQLite. The callback of a transaction
 * gets Kysely's own `trx`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for another database or object, TRANSACTION_MISUSED
 *   for a `trx` that has ended
 * @example
 * await producer.transaction(fromKysely(db), message, async (trx) => {
 *   await trx.insertInto('account').values({ id: 7 }).execute();
 * });
 */
export function fromKysely<DB>(db: Kysely<DB>): LocalDatabase<Transaction<DB>>;
export function fromKysely<DB>(
  given: Kysely<DB> | Transaction<DB>,
): LocalDatabase<Transaction<DB>> | LocalTransaction {
  if (!isKysely(given)) throw foreign(ADAPTER, TAKES, given);
  const dialect = dialectOf(given);
  if (given.isTransaction) {
    const { isCommitted, isRolledBack } = given as {
      isCommitted?: boolean;
      isRolledBack?: boolean;
    };
    if (isCommitted || isRolledBack) throw ended(ADAPTER, 'the trx of db.transaction().execute');
    return { kind: 'transaction', dialect, layer: 'Kysely', executor: executorOf(given, dialect) };
  }
  return managedDatabase<Transaction<DB>>({
    on: given,
    dialect,
    layer: 'Kysely',
    begin: (work) => given.transaction().execute(work),
    executor: (trx) => executorOf(trx, dialect),
  });
}

function isKysely<DB>(given: Kysely<DB>): boolean {
  return (
    typeof given === 'object' &&
    given !== null &&
    typeof given.isTransaction === 'boolean' &&
    typeof given.getExecutor === 'function'
  );
}

/** Kysely's own adapters, which those of other drivers extend. */
const DIALECTS: Record<string, Dialect> = {
  MysqlAdapter: 'mysql',
  PostgresAdapter: 'postgres',
  SqliteAdapter: 'sqlite',
};

function dialectOf<DB>(db: Kysely<DB>): Dialect {
  const { adapter } = db.getExecutor();
  for (let proto = Object.getPrototypeOf(adapter); proto; proto = Object.getPrototypeOf(proto)) {
    const dialect = DIALECTS[proto.constructor.name];
    if (dialect !== undefined) return dialect;
  }
  throw unknownDialect(ADAPTER, adapter.constructor.name);
}

function executorOf<DB>(trx: Kysely<DB>, dialect: Dialect): Executor {
  // Plugins rename the columns of what was selected.
  const plain = trx.withoutPlugins();
  return executorOn({
    layer: 'Kysely',
    hooks: 'the dialect, or an option of the driver below it (nestTables, typeCast, a type parser)',
    async send(sql, values) {
      const text = dialect === 'postgres' ? numbered(sql) : sql;
      return (await plain.executeQuery(rawQuery(text, values))).rows;
    },
  });
}

/** What `CompiledQuery.raw` of Kysely makes, without importing Kysely to make it. */
function rawQuery(sql: string, parameters: readonly unknown[]): CompiledQuery {
  return {
    sql,
    parameters,
    query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
    queryId: { queryId: 'escrowmq' },
  };
}
