import type { Knex } from 'knex';
import type { Dialect, Executor, LocalDatabase, LocalTransaction } from '../database.js';
import { executorOn } from '../executor.js';
import { ended, foreign, unknownDialect } from './layer-misuse.js';
import { managedDatabase } from './managed.js';
import { AS_OBJECTS } from './mysql2-executor.js';
import { AS_SENT } from './pg-rows.js';

const ADAPTER = 'fromKnex';
const TAKES = 'a knex instance, or the trx that knex.transaction hands to its callback';

/** A transaction that you opened with Knex, and will end, yourself. */
export function fromKnex(trx: Knex.Transaction): LocalTransaction;
/**
 * A database behind Knex on MySQL, MariaDB, PostgreSQL or SQLite. The callback of a transaction gets
 * Knex's own `trx`; nested transactions are savepoints, as ever.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for another database or object, TRANSACTION_MISUSED
 *   for a `trx` that has ended
 * @example
 * await producer.transaction(fromKnex(knex), message, async (trx) => {
 *   await trx('account').insert({ id: 7 });
 * });
 */
export function fromKnex(knex: Knex): LocalDatabase<Knex.Transaction>;
export function fromKnex(
  given: Knex | Knex.Transaction,
): LocalDatabase<Knex.Transaction> | LocalTransaction {
  if (typeof given !== 'function' || typeof given.raw !== 'function' || !('client' in given)) {
    throw foreign(ADAPTER, TAKES, given);
  }
  const dialect = dialectOf(given);
  if (isTransaction(given)) {
    if (given.isCompleted()) throw ended(ADAPTER, 'the trx that knex.transaction hands out');
    return { kind: 'transaction', dialect, layer: 'Knex', executor: executorOf(given, dialect) };
  }
  return managedDatabase<Knex.Transaction>({
    on: given,
    dialect,
    layer: 'Knex',
    begin: (work) => given.transaction(work),
    executor: (trx) => executorOf(trx, dialect),
  });
}

const isTransaction = (knex: Knex): knex is Knex.Transaction => knex.isTransaction === true;

/** Knex names the family of a driver: mysql and mysql2, pg and pg-native, sqlite3 and better-sqlite3. */
const DIALECTS: Record<string, Dialect> = {
  mysql: 'mysql',
  postgresql: 'postgres',
  sqlite3: 'sqlite',
};

function dialectOf(knex: Knex): Dialect {
  const { dialect: family, config } = knex.client;
  // It passes for PostgreSQL, whose driver it uses.
  const found: unknown = config?.client === 'cockroachdb' ? config.client : family;
  const dialect = DIALECTS[String(found)];
  if (dialect === undefined) throw unknownDialect(ADAPTER, found);
  return dialect;
}

/** Where the drivers below Knex put the rows of a select. */
const ROWS: Record<Dialect, (answer: unknown) => unknown> = {
  mysql: (answer) => (Array.isArray(answer) ? answer[0] : undefined),
  postgres: (answer) =>
    typeof answer === 'object' && answer !== null && 'rows' in answer ? answer.rows : undefined,
  sqlite: (answer) => answer,
};

/** What Knex hands to the driver with a statement: rows as they come, whatever the driver is set to. */
const OPTIONS: Record<Dialect, Record<string, unknown>> = {
  mysql: AS_OBJECTS,
  postgres: AS_SENT,
  sqlite: {},
};

function executorOf(trx: Knex.Transaction, dialect: Dialect): Executor {
  return executorOn({
    layer: 'Knex',
    hooks: 'postProcessResponse',
    async send(sql, values) {
      const raw = trx.raw(sql, [...values]).options(OPTIONS[dialect]);
      return ROWS[dialect](await withoutProcessing(raw));
    },
  });
}

/**
 * A statement whose answer does not go through the `postProcessResponse` of the service, which renames
 * columns, makes models, or leaves rows out. A statement of Knex asks the client that it holds for
 * that; this one's says no, and is the transaction's own in all the rest.
 */
function withoutProcessing<T extends object>(raw: T): T {
  if (!('client' in raw) || typeof raw.client !== 'object') return raw;
  raw.client = Object.create(raw.client, {
    postProcessResponse: { value: (answer: unknown) => answer },
  });
  return raw;
}
