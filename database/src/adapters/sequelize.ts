import type { Sequelize, Transaction } from 'sequelize';
import type { Dialect, Executor, LocalDatabase, LocalTransaction } from '../database.js';
import { executorOn } from '../executor.js';
import { ended, foreign, unknownDialect } from './layer-misuse.js';
import { managedDatabase } from './managed.js';
import { answersRows } from './rows.js';

const ADAPTER = 'fromSequelize';
const PASS = 'the transaction that sequelize.transaction hands to its callback';
const TAKES = `a Sequelize instance, or ${PASS}`;

/** A transaction that you opened with Sequelize, and will end, yourself. */
export function fromSequelize(transaction: Transaction): LocalTransaction;
/**
 * A database behind Sequelize 6 on MySQL, MariaDB or PostgreSQL. The callback of a transaction gets
 * Sequelize's own, to be passed on as the option `transaction` of every call.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for another database or object, TRANSACTION_MISUSED
 *   for a transaction that has ended
 * @example
 * await producer.transaction(fromSequelize(sequelize), message, async (transaction) => {
 *   await Account.create({ id: 7 }, { transaction });
 * });
 */
export function fromSequelize(sequelize: Sequelize): LocalDatabase<Transaction>;
export function fromSequelize(
  given: Sequelize | Transaction,
): LocalDatabase<Transaction> | LocalTransaction {
  if (isTransaction(given)) {
    if (given.finished !== undefined) throw ended(ADAPTER, PASS);
    const dialect = dialectOf(given.sequelize);
    return { kind: 'transaction', dialect, layer: 'Sequelize', executor: executorOf(given) };
  }
  if (!isSequelize(given)) throw foreign(ADAPTER, TAKES, given);
  const dialect = dialectOf(given);
  return managedDatabase<Transaction>({
    on: given,
    dialect,
    layer: 'Sequelize',
    begin: (work) => given.transaction(work),
    executor: executorOf,
  });
}

const isSequelize = (given: unknown): given is Sequelize =>
  typeof given === 'object' && given !== null && 'getDialect' in given && 'transaction' in given;

/** What a transaction of Sequelize has, though its types do not say so. */
type OpenTransaction = Transaction & { sequelize: Sequelize; finished?: 'commit' | 'rollback' };

const isTransaction = (given: unknown): given is OpenTransaction =>
  typeof given === 'object' &&
  given !== null &&
  'rollback' in given &&
  'sequelize' in given &&
  isSequelize(given.sequelize);

const DIALECTS: Record<string, Dialect> = {
  mysql: 'mysql',
  mariadb: 'mysql',
  postgres: 'postgres',
};

function dialectOf(sequelize: Sequelize): Dialect {
  const found = sequelize.getDialect();
  const dialect = DIALECTS[found];
  if (dialect !== undefined) return dialect;
  throw unknownDialect(ADAPTER, found, '; on SQLite use fromSqlite');
}

/**
 * Instead of what the service may have set for all of its queries. Repeated by itself after a deadlock,
 * a statement would stand alone, outside of the transaction that the server has rolled back.
 */
const AS_IT_STANDS = {
  raw: true,
  nest: false,
  plain: false,
  mapToModel: false,
  retry: { max: 1 },
};

function executorOf(transaction: Transaction): Executor {
  const { sequelize } = transaction as OpenTransaction;
  return executorOn({
    layer: 'Sequelize',
    hooks: 'an afterQuery hook, or an option of the driver in dialectOptions',
    async send(sql, values) {
      // Sequelize writes them into the text. Bound they would go through a prepared statement, which
      // takes two round trips on MySQL, and no number after LIMIT there.
      const options = { ...AS_IT_STANDS, replacements: [...values], transaction };
      if (!answersRows(sql)) return sequelize.query(sql, options);
      // Written out, because Sequelize's own constant would have to be imported.
      const type = 'SELECT' as const;
      return sequelize.query(sql, { ...options, type });
    },
  });
}
