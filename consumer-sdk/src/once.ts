import { ConsumerGroupName, EscrowError, parse, parseMessageId } from '@escrowmq/protocol';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { INSERT_CONSUMED } from './consumed-table.js';
import type { Message } from './delivery/message.js';

/** What `once` needs of a message, so that a test or a replay can call it without one. */
export type OnceMessage = Pick<Message, 'id' | 'group'> & Partial<Pick<Message, 'signal'>>;

/**
 * Applies a message once, however often it comes: `work` and the note that this consumer group has
 * applied this message are one transaction of the consumer's database. The message is
 * acknowledged outside of it, by returning from the handler, whichever the result.
 *
 * `work` does everything through `tx`, and neither commits, rolls back nor changes the schema
 * there: each of these ends the transaction. A failure in it, deadlocks included, rolls all of it
 * back and is thrown: let it pass, and the subscription tries the message again.
 *
 * Needs the table of `ensureConsumedTable`, on InnoDB.
 *
 * @returns `'applied'`, or `'duplicate'` when it was applied before; `work` is not called then
 * @throws whatever `work` or the database threw; EscrowError TRANSACTION_MISUSED when the
 *   transaction had ended before its time, OUTCOME_UNKNOWN when the answer to COMMIT was lost
 *   (the message comes again, and then the table tells)
 * @example
 * await once(pool, message, async (tx) => {
 *   await tx.execute('update accounts set balance = balance + ? where id = ?', [sum, id]);
 * });
 */
export async function once(
  pool: Pool,
  message: OnceMessage,
  work: (tx: PoolConnection) => Promise<unknown>,
): Promise<'applied' | 'duplicate'> {
  parse(ConsumerGroupName, message.group, 'message.group');
  if (parseMessageId(message.id) === undefined) {
    throw new EscrowError('INVALID_ID', 'message.id is not <transaction id>-<number>');
  }
  // The wait for a connection has no limit of its own: when the handler's time is over by then,
  // the connection goes back unused.
  const connection = await pool.getConnection();
  let isClean = false;
  try {
    message.signal?.throwIfAborted();
    const result = await applyOn(connection, message, work);
    isClean = true;
    return result;
  } catch (error) {
    isClean = await rolledBack(connection);
    throw error;
  } finally {
    // Once, and never back into the pool in a state nobody knows. Closing it rolls back as well.
    if (isClean) connection.release();
    else connection.destroy();
  }
}

async function applyOn(
  connection: PoolConnection,
  message: OnceMessage,
  work: (tx: PoolConnection) => Promise<unknown>,
): Promise<'applied' | 'duplicate'> {
  // Instead of BEGIN: after a deadlock has ended the transaction, what a callback that swallowed
  // it does next stands in a new transaction, which is rolled back, and not in autocommit.
  await connection.query('set autocommit = 0');
  // First of all, so that a second instance with the same message waits here and not in `work`.
  if (!(await inserted(connection, message))) {
    await connection.query('rollback');
    await connection.query('set autocommit = 1');
    return 'duplicate';
  }
  await connection.query('savepoint escrow_once');
  await work(connection);
  // A handler out of time counts as failed: what it did must not stand. From here to the end of
  // COMMIT both can still be true; then the message comes again and is a duplicate.
  message.signal?.throwIfAborted();
  await verifyStillOpen(connection, message);
  await commit(connection, message);
  await connection.query('set autocommit = 1');
  return 'applied';
}

const ER_DUP_ENTRY = 1062;
const ER_SP_DOES_NOT_EXIST = 1305;

function hasErrno(error: unknown, errno: number): boolean {
  return error instanceof Error && 'errno' in error && error.errno === errno;
}

/** False when this group has applied the message before. */
async function inserted(connection: PoolConnection, message: OnceMessage): Promise<boolean> {
  try {
    // Plain: INSERT IGNORE would take any trouble for a duplicate.
    await connection.execute(INSERT_CONSUMED, [message.group, message.id]);
    return true;
  } catch (error) {
    if (hasErrno(error, ER_DUP_ENTRY)) return false;
    throw error;
  }
}

/** The savepoint lives exactly as long as the transaction that holds our row. */
async function verifyStillOpen(connection: PoolConnection, message: OnceMessage): Promise<void> {
  try {
    await connection.query('release savepoint escrow_once');
  } catch (error) {
    if (!hasErrno(error, ER_SP_DOES_NOT_EXIST)) throw error;
    throw new EscrowError(
      'TRANSACTION_MISUSED',
      `the transaction of message ${message.id} ended before its work did: the work swallowed a ` +
        'deadlock, or committed, rolled back or changed the schema through tx. Let deadlocks ' +
        'pass, and leave the transaction to once',
      { cause: error },
    );
  }
}

async function commit(connection: PoolConnection, message: OnceMessage): Promise<void> {
  try {
    await connection.query('commit');
  } catch (error) {
    throw new EscrowError(
      'OUTCOME_UNKNOWN',
      `whether message ${message.id} was applied is not known: COMMIT got no answer. It comes ` +
        'again, and then the table tells',
      { cause: error },
    );
  }
}

/** True when the connection is as it was. On a broken one it is the server that rolls back. */
async function rolledBack(connection: PoolConnection): Promise<boolean> {
  try {
    await connection.query('rollback');
    await connection.query('set autocommit = 1');
    return true;
  } catch {
    // The error that brought us here is the one to tell; this connection is thrown away.
    return false;
  }
}
