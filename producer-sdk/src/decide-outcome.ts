import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import { barrierId, insertBarrier } from './barrier.js';
import { acquire, type Lease, SERVER_ERROR, serverErrorOf } from './connection-lease.js';
import { backOffMs, Deadline, within } from './deadline.js';

/**
 * What became of a local transaction? This module does not look, it decides: it tries to insert
 * the barrier row as `rollback`, on a connection of its own, in autocommit.
 *
 * - The row went in: the local transaction has not committed and never will, because its own
 *   insert fails on the duplicate. The answer is rollback, for ever.
 * - Duplicate key: somebody decided before. A locking read says what, so the answer is what is
 *   durable now and not what an old snapshot shows.
 * - The insert waits on the lock of an open transaction: after a second the answer is unknown, and
 *   nothing is decided.
 *
 * Reading alone would find no row while the local transaction is still open; whoever then answers
 * rollback loses the message of a transaction that commits a moment later.
 *
 * A crash at any point, or a limit that passes while the insert is under way, leaves either no
 * row, and the next check decides, or a rollback row, and the next check answers rollback.
 */
export type Outcome =
  | { decision: 'commit' | 'rollback' }
  | { decision: 'unknown'; reason: string; cause?: unknown };

/** Seconds, the smallest that InnoDB takes: a check asks again later instead of waiting. */
const LOCK_WAIT_SECONDS = 1;

/** One decision: two lock waits at most, and what opening a connection takes. */
const DECISION_MS_MAX = 3_000;

/** Decides once, within `limitMs`. Never throws: whatever goes wrong is `unknown`. */
export async function decideOutcome(pool: Pool, id: string, limitMs: number): Promise<Outcome> {
  const deadline = new Deadline(limitMs);
  let lease: Lease;
  try {
    lease = await acquire(pool, deadline.leftMs);
  } catch (cause) {
    return { decision: 'unknown', reason: 'no database connection', cause };
  }
  try {
    const outcome = await within(decideOn(lease.connection, id), deadline.leftMs, {
      error: () => new Error(`the database gave no answer within ${limitMs} ms`),
    });
    lease.release();
    return outcome;
  } catch (cause) {
    // Its settings may be changed and a statement may still run on it: nobody else can use it.
    lease.destroy();
    return { decision: 'unknown', reason: 'the database refused or did not answer', cause };
  }
}

/** Decides again and again until the answer is not `unknown` or `limitMs` have passed. */
export async function settleOutcome(pool: Pool, id: string, limitMs: number): Promise<Outcome> {
  const deadline = new Deadline(limitMs);
  for (let failures = 1; ; failures += 1) {
    const outcome = await decideOutcome(pool, id, Math.min(DECISION_MS_MAX, deadline.leftMs));
    if (outcome.decision !== 'unknown') return outcome;
    if (!(await deadline.pause(backOffMs(failures)))) return outcome;
  }
}

interface SessionRow extends RowDataPacket {
  lockWaitSeconds: number;
  autocommit: number;
  readOnly: number | string;
}

interface BarrierRow extends RowDataPacket {
  decision: string;
}

async function decideOn(connection: PoolConnection, id: string): Promise<Outcome> {
  // Somebody may have left a transaction open here; switching autocommit on would commit it.
  await connection.query('rollback');
  const [before] = await select<SessionRow>(
    connection,
    `select @@session.innodb_lock_wait_timeout as lockWaitSeconds,
            @@session.autocommit as autocommit, @@global.read_only as readOnly`,
  );
  if (before === undefined) return { decision: 'unknown', reason: 'no session settings' };
  // A user with enough rights may write to a replica all the same, and such a row decides nothing.
  if (!['0', 'OFF'].includes(String(before.readOnly))) {
    return { decision: 'unknown', reason: 'the database is read-only: not the primary' };
  }
  await setSession(connection, LOCK_WAIT_SECONDS, 1);
  const outcome = await insertRollback(connection, id);
  await setSession(connection, before.lockWaitSeconds, before.autocommit);
  return outcome;
}

async function setSession(connection: PoolConnection, lockWaitSeconds: number, autocommit: number) {
  await connection.query('set session innodb_lock_wait_timeout = ?, session autocommit = ?', [
    lockWaitSeconds,
    autocommit,
  ]);
}

/** @throws what leaves the connection in doubt: a lost connection, a missing table, no rights */
async function insertRollback(connection: PoolConnection, id: string): Promise<Outcome> {
  try {
    await insertBarrier(connection, id, 'rollback');
    return { decision: 'rollback' };
  } catch (error) {
    if (serverErrorOf(error) !== SERVER_ERROR.duplicateKey) return stillOpen(error);
  }
  try {
    return await readDecision(connection, id);
  } catch (error) {
    return stillOpen(error);
  }
}

/** Lock wait and deadlock are what an open transaction looks like; everything else is rethrown. */
function stillOpen(error: unknown): Outcome {
  switch (serverErrorOf(error)) {
    case SERVER_ERROR.lockWaitTimeout:
      return { decision: 'unknown', reason: 'the local transaction is still open', cause: error };
    case SERVER_ERROR.deadlock:
      return { decision: 'unknown', reason: 'deadlock with another check', cause: error };
    default:
      throw error;
  }
}

async function readDecision(connection: PoolConnection, id: string): Promise<Outcome> {
  // FOR UPDATE and not FOR SHARE, which MariaDB does not have.
  const [row] = await select<BarrierRow>(
    connection,
    'select decision from escrow_barrier where transaction_id = ? for update',
    [barrierId(id)],
  );
  if (row === undefined) {
    return { decision: 'unknown', reason: 'a duplicate key, and then no row' };
  }
  if (row.decision === 'commit' || row.decision === 'rollback') return { decision: row.decision };
  return { decision: 'unknown', reason: `the row says ${JSON.stringify(row.decision)}` };
}

/** Rows as objects, whatever a caller's pool is set to. */
async function select<Row extends RowDataPacket>(
  connection: PoolConnection,
  sql: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const [rows] = await connection.query<Row[]>({
    sql,
    values,
    rowsAsArray: false,
    nestTables: false,
    typeCast: true,
  });
  return rows;
}
