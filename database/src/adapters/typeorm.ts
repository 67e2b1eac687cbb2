import type { DataSource, EntityManager } from 'typeorm';
import type { Dialect, Executor, LocalDatabase, LocalTransaction } from '../database.js';
import { executorOn } from '../executor.js';
import { ended, foreign, unknownDialect } from './layer-misuse.js';
import { managedDatabase } from './managed.js';
import { numbered } from './placeholders.js';

const ADAPTER = 'fromTypeOrm';
const PASS = 'the manager that dataSource.transaction hands to its callback';
const TAKES = `a DataSource, or ${PASS}`;

/**
 * A transaction that you opened with TypeORM, and will end, yourself: the manager that
 * `dataSource.transaction` hands out, or `queryRunner.manager` after `startTransaction`.
 */
export function fromTypeOrm(manager: EntityManager): LocalTransaction;
/**
 * A database behind TypeORM on MySQL, MariaDB or PostgreSQL. The callback of a transaction gets
 * TypeORM's own manager. Not on SQLite, where TypeORM runs everything on one connection: a check
 * would see the rows of a transaction that is still open. Use `fromSqlite` there.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for another database or object, TRANSACTION_MISUSED
 *   for a manager without an open transaction
 * @example
 * await producer.transaction(fromTypeOrm(dataSource), message, async (manager) => {
 *   await manager.insert(Account, { id: 7 });
 * });
 */
export function fromTypeOrm(dataSource: DataSource): LocalDatabase<EntityManager>;
export function fromTypeOrm(
  given: DataSource | EntityManager,
): LocalDatabase<EntityManager> | LocalTransaction {
  if (!isDataSource(given)) {
    if (!isManager(given)) throw foreign(ADAPTER, TAKES, given);
    if (given.queryRunner?.isTransactionActive !== true) throw ended(ADAPTER, PASS);
    const dialect = dialectOf(dataSourceOf(given) as DataSource);
    return { kind: 'transaction', dialect, layer: 'TypeORM', executor: executorOf(given, dialect) };
  }
  const dialect = dialectOf(given);
  return managedDatabase<EntityManager>({
    on: given,
    dialect,
    layer: 'TypeORM',
    begin: (work) => given.transaction(work),
    executor: (manager) => executorOf(manager, dialect),
  });
}

const isObject = (given: unknown): given is object => typeof given === 'object' && given !== null;

/** Under its name of TypeORM 1, or of 0.3. */
function dataSourceOf(given: object): unknown {
  if ('dataSource' in given) return given.dataSource;
  return 'connection' in given ? given.connection : undefined;
}

const isManager = (given: unknown): given is EntityManager =>
  isObject(given) && isDataSource(dataSourceOf(given));

const isDataSource = (given: unknown): given is DataSource =>
  isObject(given) && 'createQueryRunner' in given && 'options' in given;

const DIALECTS: Record<string, Dialect> = {
  mysql: 'mysql',
  mariadb: 'mysql',
  postgres: 'postgres',
};

function dialectOf({ options: { type } }: DataSource): Dialect {
  const dialect = DIALECTS[type];
  if (dialect !== undefined) return dialect;
  const cure = /sqlite/.test(type)
    ? ', and on SQLite not through TypeORM, which has one connection for everything: use fromSqlite'
    : '';
  throw unknownDialect(ADAPTER, type, cure);
}

function executorOf(manager: EntityManager, dialect: Dialect): Executor {
  return executorOn({
    layer: 'TypeORM',
    hooks: 'an option of the driver in extra (nestTables, typeCast, a type parser)',
    send: (sql, values) => manager.query(dialect === 'postgres' ? numbered(sql) : sql, [...values]),
  });
}
