import { EscrowError } from '@escrowmq/protocol';
import type { ClientBase, Pool, PoolClient } from 'pg';
import type { LocalDatabase, LocalTransaction, TransactionLimits } from '../database.js';
import { Deadline, within } from '../deadline.js';
import { servesNobody } from '../server-errors.js';
import { noConnection, unavailable } from '../unavailable.js';
import { acquire, type Lease } from './pg-lease.js';
import { openPgTransaction, type PgTransaction, pgExecutor } from './pg-transaction.js';

export type { PgTransaction };

/**
 * PostgreSQL through pg (node-postgres).
 *
 * A pool becomes a database, for `producer.transaction` and for checks. A client on which you began
 * a transaction becomes that transaction, for `producer.enlist`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for anything else
 * @example
 * const database = fromPg(new Pool({ connectionString }));
 * await producer.transaction(database, messages, async (tx) => {
 *   await tx.query('insert into account (id) values ($1)', [id]);
 * });
 */
export function fromPg(pool: Pool): LocalDatabase<PgTransaction>;
export function fromPg(client: ClientBase): LocalTransaction;
export function fromPg(given: Pool | ClientBase): LocalDatabase<PgTransaction> | LocalTransaction {
  if (typeof given !== 'object' || given === null || typeof given.query !== 'function') {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      'fromPg takes a Pool of pg, or for enlist the client that you began a transaction on',
    );
  }
  // Only a pool counts its clients.
  if ('totalCount' in given) return databaseOn(given);
  return { kind: 'transaction', dialect: 'postgres', layer: 'pg', executor: pgExecutor(given) };
}

function databaseOn(pool: Pool): LocalDatabase<PgTransaction> {
  return {
    kind: 'database',
    dialect: 'postgres',
    layer: 'pg',
    on: pool,
    transaction: (work, limits) =>
      inTransaction(pool, limits, (client) => work(openPgTransaction(client))),
    async session(work, limits) {
      try {
        return await inTransaction(pool, limits, (client) =>
          heldTo(limits, work(pgExecutor(client))),
        );
      } catch (error) {
        throw unavailable(error, 'pg');
      }
    },
  };
}

async function inTransaction<T>(
  pool: Pool,
  limits: TransactionLimits,
  work: (client: PoolClient) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(limits.connectionTimeoutMs);
  const lease = await acquire(pool, deadline.leftMs);
  let result: T;
  try {
    const begun = bounded(begin(lease.client), 'begin', deadline.leftMs);
    await begun.catch((error: unknown) => {
      throw noConnection(error, 'pg');
    });
    result = await work(lease.client);
  } catch (error) {
    await rollBack(lease, error);
    throw error;
  }
  await commit(lease, limits);
  return result;
}

/** active_sql_transaction, as the warning that BEGIN gives inside of a transaction. */
const ALREADY_IN_TRANSACTION = '25001';

/**
 * Somebody may have left a transaction open on a client that he gave back; BEGIN would only warn,
 * and our COMMIT would be the end of his. Rolling back always would warn in every other case.
 */
async function begin(client: PoolClient): Promise<void> {
  let isOpen = false;
  const onNotice = ({ code }: { code?: string | undefined }) => {
    if (code === ALREADY_IN_TRANSACTION) isOpen = true;
  };
  client.on('notice', onNotice);
  try {
    await client.query('begin');
    if (!isOpen) return;
    await client.query('rollback');
    await client.query('begin');
  } finally {
    client.removeListener('notice', onNotice);
  }
}

async function commit(lease: Lease, { commitTimeoutMs }: TransactionLimits): Promise<void> {
  try {
    const { command } = await bounded(lease.client.query('commit'), 'commit', commitTimeoutMs);
    // After an error that somebody swallowed, PostgreSQL answers COMMIT with ROLLBACK and no error.
    if (command !== 'COMMIT') {
      throw new EscrowError(
        'TRANSACTION_MISUSED',
        `PostgreSQL answered COMMIT with ${command}: a statement of the transaction had failed, and its error was swallowed`,
      );
    }
  } catch (error) {
    // Nobody knows the outcome; closing the connection changes none.
    lease.destroy();
    throw error;
  }
  lease.release();
}

/** A ROLLBACK takes longer only on a connection that is stuck; destroying it rolls back as well. */
const ROLLBACK_MS_MAX = 2_000;

async function rollBack(lease: Lease, cause: unknown): Promise<void> {
  try {
    await bounded(lease.client.query('rollback'), 'rollback', ROLLBACK_MS_MAX);
    // Another connection may reach a server that serves.
    if (servesNobody(cause)) lease.destroy();
    else lease.release();
  } catch {
    // Closing the connection rolls back as well; the error would say no more than that.
    lease.destroy();
  }
}

/** Nobody but the SDK sends statements in a session, so that what takes too long is stuck. */
function heldTo<T>({ commitTimeoutMs }: TransactionLimits, work: Promise<T>): Promise<T> {
  return bounded(work, 'the statements of a session', commitTimeoutMs);
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
