import { EscrowError } from '@escrowmq/protocol';
import type { LocalDatabase, LocalTransaction } from '../database.js';
import { fromMysql2 } from './mysql2.js';
import type { Mysql2Connection, Mysql2Pool, Mysql2Transaction } from './mysql2-shape.js';

/** A database as callers pass it: made by an adapter, or a pool of mysql2/promise itself. */
export type DatabaseInput = LocalDatabase<unknown> | Mysql2Pool;

const ADAPTERS =
  'a pool of mysql2/promise, or what an adapter makes of yours: fromPg(pool), fromSqlite(open), fromKnex(knex), fromKysely(db), fromDrizzle(db, sql), fromTypeOrm(dataSource), fromPrisma(prisma), fromSequelize(sequelize)';

/** One per pool, so that what is known of a database is known of it the next time as well. */
const ofPools = new WeakMap<object, LocalDatabase<unknown>>();

/**
 * The database behind what a caller passed: a pool of mysql2/promise gets its adapter.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for anything else, a transaction included: the SDK
 *   opens its own
 */
export function databaseOf(given: Mysql2Pool | LocalDatabase<unknown>): LocalDatabase<unknown>;
/** The database behind what a caller passed: a pool of mysql2/promise gets its adapter. */
export function databaseOf<C extends Mysql2Connection, Tx>(
  given: Mysql2Pool<C> | LocalDatabase<Tx>,
): LocalDatabase<Mysql2Transaction<C>> | LocalDatabase<Tx>;
/** The database behind what a caller passed: a pool of mysql2/promise gets its adapter. */
export function databaseOf(given: unknown): LocalDatabase<unknown> {
  if (typeof given === 'object' && given !== null) {
    if ('kind' in given && given.kind === 'database') return given as LocalDatabase<unknown>;
    if ('kind' in given && given.kind === 'transaction') {
      throw refused(
        `a transaction of ${(given as LocalTransaction).layer} stands where a database is meant; to add messages to a transaction that you opened, call producer.enlist(transaction, messages)`,
      );
    }
    if ('getConnection' in given) return ofPool(given as Mysql2Pool);
  }
  throw refused(`this is no database that the SDK knows; pass ${ADAPTERS}`);
}

function ofPool(pool: Mysql2Pool): LocalDatabase<unknown> {
  const known = ofPools.get(pool);
  if (known !== undefined) return known;
  const made = fromMysql2(pool) as LocalDatabase<unknown>;
  ofPools.set(pool, made);
  return made;
}

/**
 * The open transaction behind what a caller passed.
 * @throws {EscrowError} TRANSACTION_MISUSED for a database or pool: its statements are not in the
 * caller's transaction
 */
export function transactionOf(given: unknown): LocalTransaction {
  if (typeof given === 'object' && given !== null && 'kind' in given) {
    if (given.kind === 'transaction') return given as LocalTransaction;
    if (given.kind === 'database') {
      const { layer } = given as LocalDatabase<unknown>;
      throw misused(
        `${layer}'s database was passed where its open transaction is meant: what goes through a pool is not part of your transaction. Pass the adapter what your transaction's callback got, such as fromKnex(trx)`,
      );
    }
  }
  throw misused(
    'pass the open transaction through its adapter, such as fromMysql2(connection), fromKnex(trx) or fromPrisma(tx)',
  );
}

const refused = (message: string) => new EscrowError('INVALID_CONFIGURATION', message);
const misused = (message: string) => new EscrowError('TRANSACTION_MISUSED', message);
