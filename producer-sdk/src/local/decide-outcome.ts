import type { Dialect, Executor, LocalDatabase } from '@escrowmq/database';
import { Deadline, isAnswered, meaningOf, repeatedSession, within } from '@escrowmq/database';
import { fromZodError, type MessageData, MessageDataList } from '@escrowmq/protocol';
import { backOffMs } from '../back-off.js';
import { insertBarrier } from './barrier.js';
import { BARRIER_COLUMNS, BARRIER_SQL, idValue, storedText } from './barrier-sql.js';

/**
 * What became of a local transaction? This module does not look, it decides: it tries to insert
 * the barrier row as `rollback`, on a connection of its own, outside of any other transaction.
 *
 * - The row went in: the local transaction has not committed and never will, because its own
 *   insert fails on the duplicate. The answer is rollback, for ever.
 * - Duplicate key: somebody decided before. A locking read says what, so the answer is what is
 *   durable now and not what an old snapshot shows.
 * - The insert waits on the lock of an open transaction: after a second the answer is unknown, and
 *   nothing is decided.
 * - A conflict with it or with another check: nothing was written, and it is tried again at once.
 *
 * Reading alone would find no row while the local transaction is still open; whoever then answers
 * rollback loses the message of a transaction that commits a moment later.
 *
 * A crash at any point, or a limit that passes while the insert is under way, leaves either no
 * row, and the next check decides, or a rollback row, and the next check answers rollback.
 */
export type Outcome =
  | {
      decision: 'commit';
      /** What the local transaction supplied for the messages whose data it had left open. */
      messageData?: MessageData[];
    }
  | { decision: 'rollback' }
  | { decision: 'unknown'; reason: string; cause?: unknown };

/** Seconds, the smallest that InnoDB takes: a check asks again later instead of waiting. */
const LOCK_WAIT_SECONDS = 1;

/** One decision: two lock waits at most, and what opening a connection takes. */
const DECISION_MS_MAX = 3_000;

/**
 * The row whose primary key admits one decision for each transaction: of the barrier, or of another
 * table that the local transaction writes to.
 */
export interface DecidingRow {
  /** The name of its table. */
  table: string;
  /** @throws the layer's error; on a duplicate key somebody has decided before */
  insertRollback(on: On, id: string): Promise<void>;
  /** What a locking read says; `undefined` without a row. */
  read(on: On, id: string): Promise<Outcome | undefined>;
}

interface On {
  executor: Executor;
  dialect: Dialect;
}

const BARRIER_ROW: DecidingRow = {
  table: 'escrow_barrier',
  insertRollback: (on, id) => insertBarrier(on, id, 'rollback'),
  async read({ executor, dialect }, id) {
    const { read } = BARRIER_SQL[dialect];
    const [row] = await executor.select(read, BARRIER_COLUMNS, [idValue(id)]);
    if (row === undefined) return undefined;
    if (row.decision === 'rollback') return { decision: 'rollback' };
    if (row.decision === 'commit') return committed(storedText(dialect, row.data));
    return { decision: 'unknown', reason: `the row says ${JSON.stringify(row.decision)}` };
  },
};

/** Decides once, within `limitMs`. Never throws: whatever goes wrong is `unknown`. */
export function decideOutcome(
  database: LocalDatabase<unknown>,
  id: string,
  limitMs: number,
): Promise<Outcome> {
  return decideOnce(BARRIER_ROW, { database, id }, limitMs);
}

/** Decides again and again until the answer is not `unknown` or `limitMs` have passed. */
export function settleOutcome(
  database: LocalDatabase<unknown>,
  id: string,
  limitMs: number,
): Promise<Outcome> {
  return settleIn(BARRIER_ROW, { database, id }, limitMs);
}

/** Like `settleOutcome`, by a row of another table. */
export async function settleIn(row: DecidingRow, asked: Asked, limitMs: number): Promise<Outcome> {
  const deadline = new Deadline(limitMs);
  for (let failures = 1; ; failures += 1) {
    const outcome = await decideOnce(row, asked, Math.min(DECISION_MS_MAX, deadline.leftMs));
    if (outcome.decision !== 'unknown') return outcome;
    const pauseMs = backOffMs(failures);
    // With less left than a lock wait, the next would only say that it had no time.
    if (deadline.leftMs - pauseMs < LOCK_WAIT_SECONDS * 1000) return outcome;
    await deadline.pause(pauseMs);
  }
}

interface Asked {
  database: LocalDatabase<unknown>;
  id: string;
}

interface Question extends Asked {
  deadline: Deadline;
}

async function decideOnce(row: DecidingRow, asked: Asked, limitMs: number): Promise<Outcome> {
  const deadline = new Deadline(limitMs);
  try {
    return await within(decide(row, { ...asked, deadline }), limitMs, {
      error: () => new Error(`the database gave no answer within ${Math.round(limitMs)} ms`),
    });
  } catch (cause) {
    return { decision: 'unknown', reason: reasonOf(row, cause), cause };
  }
}

async function decide(row: DecidingRow, question: Question): Promise<Outcome> {
  const { id } = question;
  const { dialect } = question.database;
  try {
    // Resolved only when the row is durable: a session commits before it answers.
    await inSession(question, (executor) => row.insertRollback({ executor, dialect }, id));
    return { decision: 'rollback' };
  } catch (error) {
    if (meaningOf(error) !== 'duplicate key') throw error;
  }
  // In a session of its own: on PostgreSQL the refused insert has spoilt the one before.
  const said = await inSession(question, (executor) => row.read({ executor, dialect }, id));
  return said ?? { decision: 'unknown', reason: 'a duplicate key, and then no row' };
}

function committed(data: string | undefined): Outcome {
  if (data === undefined) return { decision: 'commit' };
  const read = MessageDataList.safeParse(JSON.parse(data));
  if (read.success) return { decision: 'commit', messageData: read.data };
  // Of an SDK that did not look before it committed, or written by hand: no broker would take it.
  const { message } = fromZodError(read.error, 'the data that the local transaction supplied');
  return { decision: 'unknown', reason: message };
}

function inSession<T>(
  { database, deadline }: Question,
  work: (executor: Executor) => Promise<T>,
): Promise<T> {
  // Whoever asked is told at the deadline, and what comes later is nobody's.
  const limitMs = Math.max(1, deadline.leftMs);
  return repeatedSession(
    database,
    (executor) => WITH_SHORT_LOCK_WAIT[database.dialect](executor, () => work(executor)),
    { connectionTimeoutMs: limitMs, commitTimeoutMs: limitMs },
  );
}

type Around = <T>(executor: Executor, work: () => Promise<T>) => Promise<T>;

/** Waits for locks no longer than a second, on this connection only. */
const WITH_SHORT_LOCK_WAIT: Record<Dialect, Around> = {
  async mysql(executor, work) {
    const [before] = await executor.select(
      'select @@session.innodb_lock_wait_timeout as wait, cast(@@global.read_only as char) as readonly',
      { wait: 'number', readonly: 'text' },
    );
    // A user with enough rights may write to a replica all the same, and such a row decides nothing.
    if (before === undefined || !['0', 'OFF'].includes(before.readonly)) {
      throw new Error('the database is read-only: not the primary');
    }
    const setLockWait = (seconds: number) =>
      executor.execute(`set session innodb_lock_wait_timeout = ${seconds}`);
    await setLockWait(LOCK_WAIT_SECONDS);
    try {
      const result = await work();
      await setLockWait(before.wait);
      return result;
    } catch (error) {
      // On a lost connection there is nothing to set back.
      if (isAnswered(error)) await setLockWait(before.wait);
      throw error;
    }
  },
  async postgres(executor, work) {
    // Until the end of the session's transaction. A replica refuses the insert by itself.
    await executor.execute(`set local lock_timeout = '${LOCK_WAIT_SECONDS}s'`);
    return work();
  },
  // One that is locked is refused at once; the adapter tries again within the limit.
  sqlite: (_executor, work) => work(),
};

/** Lock wait and conflict are what an open transaction looks like. */
function reasonOf({ table }: DecidingRow, error: unknown): string {
  switch (meaningOf(error)) {
    case 'locked':
      return 'the local transaction is still open';
    case 'deadlock':
      return 'at every attempt another check or the local transaction was faster';
    case 'read-only':
      return 'the database is read-only: not the primary';
    case 'no such table':
      return `the database has no table ${table}`;
    default:
      return `the database refused or did not answer: ${error instanceof Error ? error.message : String(error)}`;
  }
}
