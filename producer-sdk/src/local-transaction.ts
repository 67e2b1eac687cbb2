import { EscrowError } from '@escrowmq/protocol';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { insertBarrier } from './barrier.js';
import { acquire, type Lease, SERVER_ERROR, serverErrorOf } from './connection-lease.js';
import { type Deadline, within } from './deadline.js';

/**
 * The local transaction, from `start transaction` to its end. The barrier row goes in first, and a
 * savepoint right behind it. Whatever ends the transaction takes the savepoint away: a deadlock
 * that the callback swallowed, the implicit commit of a DDL statement, a stray COMMIT or ROLLBACK,
 * a second BEGIN. So the savepoint proves that this very transaction is still open and holds its
 * barrier row; the server's "in transaction" flag would not, because after a second BEGIN it is
 * true again.
 */
const SAVEPOINT = 'escrow_barrier';

/** What a callback gets: the statements of the transaction, and nothing that could end it. */
export interface TransactionConnection extends Readonly<Pick<PoolConnection, 'execute' | 'query'>> {
  /** The id under which the broker holds the messages. */
  readonly transactionId: string;
}

/** A ROLLBACK takes longer only on a connection that is stuck; destroying it rolls back as well. */
const ROLLBACK_MS_MAX = 2_000;

/**
 * Gets a connection and opens the transaction with its barrier row and savepoint.
 *
 * @throws {EscrowError} ALREADY_ROLLED_BACK when a check decided first, INVALID_CONFIGURATION when
 *   the barrier table is missing, DATABASE_UNAVAILABLE, or the driver's error. Nothing was committed.
 */
export async function openTransaction(
  pool: Pool,
  id: string,
  limits: { connectionTimeoutMs: number; deadline: Deadline },
): Promise<Lease> {
  const { connectionTimeoutMs, deadline } = limits;
  const lease = await acquire(pool, Math.min(connectionTimeoutMs, deadline.leftMs));
  try {
    await within(writeBarrier(lease.connection, id), deadline.leftMs, {
      error: () => unanswered('the barrier row', deadline.limitMs),
    });
    return lease;
  } catch (error) {
    if (serverErrorOf(error) === undefined) lease.destroy();
    else await rollBack(lease);
    throw explained(id, error);
  }
}

async function writeBarrier(connection: PoolConnection, id: string): Promise<void> {
  await connection.query('start transaction');
  await insertBarrier(connection, id, 'commit');
  await connection.query(`savepoint ${SAVEPOINT}`);
}

function explained(id: string, error: unknown): unknown {
  switch (serverErrorOf(error)) {
    case SERVER_ERROR.duplicateKey:
      return new EscrowError(
        'ALREADY_ROLLED_BACK',
        `a check rolled transaction ${id} back before its local transaction began; nothing was written, start a new one`,
        { cause: error, details: { id } },
      );
    case SERVER_ERROR.noSuchTable:
      return new EscrowError(
        'INVALID_CONFIGURATION',
        'the database has no table escrow_barrier; create it with ensureBarrierTable(pool) or BARRIER_TABLE_SQL',
        { cause: error },
      );
    default:
      return error;
  }
}

/**
 * Verifies that the transaction is still the one that wrote the barrier row.
 *
 * @returns false when it ended under the callback's hands @throws when the connection is lost
 */
export async function stillHoldsBarrier(lease: Lease, limitMs: number): Promise<boolean> {
  try {
    await bounded(lease, `release savepoint ${SAVEPOINT}`, limitMs);
    return true;
  } catch (error) {
    if (serverErrorOf(error) === SERVER_ERROR.noSuchSavepoint) return false;
    throw error;
  }
}

/** Sends COMMIT. After an error nobody knows the outcome, and the connection is closed. */
export async function commitTransaction(lease: Lease, limitMs: number): Promise<void> {
  try {
    await bounded(lease, 'commit', limitMs);
    lease.release();
  } catch (error) {
    lease.destroy();
    throw error;
  }
}

/**
 * Undoes the transaction and gives the connection back.
 *
 * @returns true when it was this very transaction that was undone, so that nothing of it can be
 *   durable; false when it had ended before or the connection was lost: a check must decide
 */
export async function undoTransaction(lease: Lease): Promise<boolean> {
  let isUndone = false;
  try {
    await bounded(lease, `rollback to savepoint ${SAVEPOINT}`, ROLLBACK_MS_MAX);
    isUndone = true;
  } catch (error) {
    if (serverErrorOf(error) === undefined) {
      lease.destroy();
      return false;
    }
    // The savepoint is gone. What is open now, if anything, came after and goes as well.
  }
  await rollBack(lease);
  return isUndone;
}

async function rollBack(lease: Lease): Promise<void> {
  try {
    await bounded(lease, 'rollback', ROLLBACK_MS_MAX);
    lease.release();
  } catch {
    // Closing the connection rolls back as well; the error would say no more than that.
    lease.destroy();
  }
}

function bounded(lease: Lease, sql: string, limitMs: number): Promise<unknown> {
  return within(lease.connection.query(sql), limitMs, { error: () => unanswered(sql, limitMs) });
}

function unanswered(what: string, limitMs: number): EscrowError {
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `the local database did not answer ${what} within ${Math.round(limitMs)} ms`,
  );
}

export interface CallbackConnection {
  tx: TransactionConnection;
  /** From now on statements are refused with `error`; those already sent go on. */
  refuse(error: Error): void;
}

/** The connection as the callback sees it: `execute` and `query`, until they are refused. */
export function callbackConnection(lease: Lease, id: string): CallbackConnection {
  const { connection } = lease;
  let refusal: Error | undefined;
  const guarded = <Call extends 'execute' | 'query'>(call: Call): PoolConnection[Call] => {
    const statement = (...args: Parameters<PoolConnection[Call]>) =>
      refusal === undefined
        ? Reflect.apply(connection[call], connection, args)
        : Promise.reject(refusal);
    // The overloads of mysql2 are kept: every argument is passed on as it came.
    return statement as PoolConnection[Call];
  };
  return {
    tx: Object.freeze({
      transactionId: id,
      execute: guarded('execute'),
      query: guarded('query'),
    }),
    refuse(error) {
      refusal ??= error;
    },
  };
}
