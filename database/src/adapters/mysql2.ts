import { EscrowError } from '@escrowmq/protocol';
import type { LocalDatabase, LocalTransaction, TransactionLimits } from '../database.js';
import { within } from '../deadline.js';
import { isAnswered, servesNobody } from '../server-errors.js';
import { noConnection, unavailable } from '../unavailable.js';
import { foreign } from './layer-misuse.js';
import { mysql2Executor, run, statusOf } from './mysql2-executor.js';
import { acquire, type Lease } from './mysql2-lease.js';
import type {
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Queryable,
  Mysql2Transaction,
} from './mysql2-shape.js';
import { openMysql2Transaction } from './mysql2-transaction.js';

export type { Mysql2Connection, Mysql2Pool, Mysql2Queryable, Mysql2Transaction };

/**
 * MySQL 8 or MariaDB 10.11 through mysql2/promise.
 *
 * A pool becomes a database, for `producer.transaction` (which takes the pool itself as well) and
 * for checks. A connection on which you began a transaction becomes that transaction, for
 * `producer.enlist`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for a pool that is not of mysql2/promise
 * @example
 * const database = fromMysql2(createPool(databaseUrl));
 */
export function fromMysql2<C extends Mysql2Connection>(
  pool: Mysql2Pool<C>,
): LocalDatabase<Mysql2Transaction<C>>;
export function fromMysql2(connection: Mysql2Queryable): LocalTransaction;
export function fromMysql2<C extends Mysql2Connection>(
  given: Mysql2Pool<C> | Mysql2Queryable,
): LocalDatabase<Mysql2Transaction<C>> | LocalTransaction {
  if ((typeof given !== 'object' && typeof given !== 'function') || given === null) {
    throw foreign('fromMysql2', 'a pool or a connection of mysql2/promise', given);
  }
  // Only the callback API has a `promise` to get to the other.
  if ('promise' in given) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      "this is the callback API of mysql2: pass what 'mysql2/promise' makes, or pool.promise()",
    );
  }
  if ('getConnection' in given) return databaseOn(given);
  return {
    kind: 'transaction',
    dialect: 'mysql',
    layer: 'mysql2',
    executor: mysql2Executor(given),
  };
}

function databaseOn<C extends Mysql2Connection>(
  pool: Mysql2Pool<C>,
): LocalDatabase<Mysql2Transaction<C>> {
  return {
    kind: 'database',
    dialect: 'mysql',
    layer: 'mysql2',
    on: pool,
    async transaction(work, limits) {
      const lease = await acquire(pool, limits.connectionTimeoutMs);
      const open = openMysql2Transaction(lease.connection);
      let result: Awaited<ReturnType<typeof work>>;
      try {
        await begin(open, limits);
        result = await work(open);
      } catch (error) {
        await rollBack(lease, error);
        throw error;
      }
      await commit(lease, limits);
      return result;
    },
    session: (work, limits) =>
      session(pool, limits, (connection) => work(mysql2Executor(connection))),
  };
}

async function begin(
  open: { begin(): Promise<void> },
  { connectionTimeoutMs }: TransactionLimits,
): Promise<void> {
  try {
    await bounded(open.begin(), 'start transaction', connectionTimeoutMs);
  } catch (error) {
    throw noConnection(error, 'mysql2');
  }
}

async function commit(
  lease: Lease<Mysql2Connection>,
  { commitTimeoutMs }: TransactionLimits,
): Promise<void> {
  try {
    await bounded(run(lease.connection, 'commit'), 'commit', commitTimeoutMs);
  } catch (error) {
    // Nobody knows the outcome; closing the connection changes none.
    lease.destroy();
    throw error;
  }
  lease.release();
}

/** A ROLLBACK takes longer only on a connection that is stuck; destroying it rolls back as well. */
const ROLLBACK_MS_MAX = 2_000;

async function rollBack(lease: Lease<Mysql2Connection>, cause: unknown): Promise<void> {
  try {
    await bounded(run(lease.connection, 'rollback'), 'rollback', ROLLBACK_MS_MAX);
    // Another connection may reach a server that serves.
    if (servesNobody(cause)) lease.destroy();
    else lease.release();
  } catch {
    // Closing the connection rolls back as well; the error would say no more than that.
    lease.destroy();
  }
}

async function session<T>(
  pool: Mysql2Pool,
  limits: TransactionLimits,
  work: (connection: Mysql2Connection) => Promise<T>,
): Promise<T> {
  const lease = await acquire(pool, limits.connectionTimeoutMs);
  let result: Awaited<ReturnType<typeof answered<T>>>;
  try {
    result = await bounded(
      inAutocommit(lease.connection, () => answered(work(lease.connection))),
      'the session',
      limits.commitTimeoutMs,
    );
  } catch (error) {
    // A statement may still run on it: nobody else can use it.
    lease.destroy();
    throw unavailable(error, 'mysql2');
  }
  lease.release();
  if ('error' in result) throw result.error;
  return result.value;
}

/** Whatever the pool is set to, so that each statement is durable by itself. */
async function inAutocommit<T>(connection: Mysql2Connection, work: () => Promise<T>): Promise<T> {
  // Somebody may have left a transaction open here; switching autocommit on would commit it.
  const status = statusOf(await run(connection, 'rollback'));
  if (status?.isAutocommit === true) return work();
  await run(connection, 'set session autocommit = 1');
  const result = await work();
  await run(connection, 'set session autocommit = 0');
  return result;
}

/** A refusal of the server leaves the connection as it was; every other error is thrown. */
async function answered<T>(work: Promise<T>): Promise<{ value: T } | { error: unknown }> {
  try {
    return { value: await work };
  } catch (error) {
    if (!isAnswered(error) || servesNobody(error)) throw error;
    return { error };
  }
}

function bounded<T>(work: Promise<T>, what: string, limitMs: number): Promise<T> {
  return within(work, limitMs, {
    error: () =>
      new EscrowError(
        'DATABASE_UNAVAILABLE',
        `the local database did not answer ${what} within ${Math.round(limitMs)} ms`,
      ),
  });
}
