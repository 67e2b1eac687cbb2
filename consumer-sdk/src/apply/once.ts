import type {
  ClaimOn,
  LocalDatabase,
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Transaction,
} from '@escrowmq/database';
import { databaseOf, meaningOf, refuseNested, runClaimed } from '@escrowmq/database';
import { requireFunction } from '@escrowmq/protocol';
import { type ApplyOptions, checkMessage, limitsOf, type OnceMessage } from './apply-options.js';
import { begin } from './begin.js';
import {
  CONSUMED_COLUMNS,
  INSERT_CONSUMED,
  lockConsumedSql,
  missingConsumedTable,
} from './consumed-table.js';
import { isKnown, note } from './duplicate-front.js';
import { endedInside } from './ended-inside.js';

/**
 * Applies a message once, however often it comes: `work` and the note that this consumer group has
 * applied this message are one transaction of the consumer's database. The message is
 * acknowledged outside of it, by returning from the handler, whichever the result.
 *
 * `work` does everything through `tx`, awaits it, and neither commits, rolls back nor changes the
 * schema there: each of these ends the transaction. A failure in it, deadlocks included, rolls all
 * of it back and is thrown: let it pass, and the subscription tries the message again.
 *
 * Await it in the handler: one that ends while it is under way has failed, and its message comes again.
 *
 * Needs the table of `ensureConsumedTable` in the database.
 *
 * @param database a pool of mysql2/promise, or what an adapter of @escrowmq/database makes
 * @returns `'applied'`, or `'duplicate'` when it was applied before; `work` is not called then
 * @throws whatever `work` or the database threw, or the reason of the message's signal when it was
 *   aborted before COMMIT: nothing is applied then
 * @throws {EscrowError} TRANSACTION_MISUSED when the transaction ended before `work` did, with
 *   `outcome` in the details; OUTCOME_UNKNOWN when COMMIT got no answer (the message comes again,
 *   and then the table tells); DATABASE_UNAVAILABLE without a connection; INVALID_ID and
 *   INVALID_NAME for a message that is none; INVALID_CONFIGURATION for a missing table
 * @example
 * await once(fromPg(pool), message, async (tx) => {
 *   await tx.query('update account set balance = balance + $1 where id = $2', [sum, id]);
 * });
 */
export function once<C extends Mysql2Connection>(
  database: Mysql2Pool<C>,
  message: OnceMessage,
  work: (tx: Mysql2Transaction<C>) => Promise<unknown>,
  options?: ApplyOptions,
): Promise<'applied' | 'duplicate'>;
export function once<Tx>(
  database: LocalDatabase<Tx>,
  message: OnceMessage,
  work: (tx: Tx) => Promise<unknown>,
  options?: ApplyOptions,
): Promise<'applied' | 'duplicate'>;
export function once<Tx>(
  given: Mysql2Pool | LocalDatabase<Tx>,
  message: OnceMessage,
  work: (tx: Tx) => Promise<unknown>,
  options: ApplyOptions = {},
): Promise<'applied' | 'duplicate'> {
  return begin('once', [message], (signal, unused) =>
    apply(given, message, work, { signal, unused, options }),
  );
}

async function apply<Tx>(
  given: Mysql2Pool | LocalDatabase<Tx>,
  message: OnceMessage,
  work: (tx: Tx) => Promise<unknown>,
  {
    options,
    signal: ofHandler,
    unused,
  }: { options: ApplyOptions; signal: AbortSignal | undefined; unused: () => void },
): Promise<'applied' | 'duplicate'> {
  const limits = limitsOf(options, 'once');
  checkMessage(message, 'once');
  requireFunction(work, 'work', 'once');
  const database = databaseOf(given) as LocalDatabase<Tx>;
  if (options.separate !== true) refuseNested(database as LocalDatabase<never>, 'once');
  const { front } = options;
  if (isKnown(front, database, message)) return 'duplicate';
  const { id, group, signal = ofHandler } = message;
  const what = `message ${id}`;
  const skipped = await runClaimed<Tx, 'duplicate'>({
    database,
    what,
    signal,
    limits,
    claim: (on) => insertConsumed(on, group, id),
    isClaimed: (on) => isConsumed(on, group, id),
    ended: endedInside(what),
    unused,
    missingTable: missingConsumedTable,
    work,
  });
  // Either this COMMIT was answered, or that of the row that refused ours.
  note(front, database, message);
  return skipped ?? 'applied';
}

async function insertConsumed(
  { executor, dialect }: ClaimOn,
  group: string,
  id: string,
): Promise<'duplicate' | undefined> {
  try {
    await executor.execute(INSERT_CONSUMED[dialect], [group, id]);
    return undefined;
  } catch (error) {
    if (meaningOf(error) === 'duplicate key') return 'duplicate';
    throw error;
  }
}

export async function isConsumed(
  { executor, dialect }: ClaimOn,
  group: string,
  id: string,
): Promise<boolean> {
  const rows = await executor.select(lockConsumedSql(dialect), CONSUMED_COLUMNS, [group, id]);
  return rows.length > 0;
}
