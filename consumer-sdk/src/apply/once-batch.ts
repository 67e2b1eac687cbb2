import type {
  ClaimOn,
  LocalDatabase,
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Transaction,
} from '@escrowmq/database';
import { databaseOf, LostRace, meaningOf, refuseNested, runClaimed } from '@escrowmq/database';
import { EscrowError, kindOf, requireFunction } from '@escrowmq/protocol';
import { type ApplyOptions, checkMessage, limitsOf, type OnceMessage } from './apply-options.js';
import { begin } from './begin.js';
import {
  CONSUMED_COLUMNS,
  insertConsumedSql,
  lockConsumedSql,
  missingConsumedTable,
  selectConsumedSql,
} from './consumed-table.js';
import { isKnown, note } from './duplicate-front.js';
import { endedInside } from './ended-inside.js';
import { isConsumed } from './once.js';

/** Ids of the messages, in their order. A message that stands twice in the batch is in both. */
export interface BatchResult {
  /** Those that were applied now. */
  applied: string[];
  /** Those that were applied before. */
  duplicates: string[];
}

/** As many as a subscription may have out at a time, and one statement of 200 KB. */
const BATCH_MAX = 2_000;

/**
 * Like `once` for several messages of one consumer group: all that were not applied before are
 * applied in one transaction of the consumer's database, or none of them.
 *
 * @param database a pool of mysql2/promise, or what an adapter of @escrowmq/database makes
 * @param messages up to 2,000
 * @param work gets the messages that were not applied before, in their order; not called for none
 * @throws {EscrowError} INVALID_REQUEST for messages of several groups or too many, and whatever
 *   `once` throws: then none of them is applied, or with OUTCOME_UNKNOWN all or none
 * @example
 * await onceBatch(pool, messages, async (tx, fresh) => {
 *   const rows = fresh.map(({ data }) => [data.id, data.name]);
 *   await tx.query('insert into parcel (id, name) values ?', [rows]);
 * });
 */
export function onceBatch<C extends Mysql2Connection, M extends OnceMessage>(
  database: Mysql2Pool<C>,
  messages: readonly M[],
  work: (tx: Mysql2Transaction<C>, fresh: M[]) => Promise<unknown>,
  options?: ApplyOptions,
): Promise<BatchResult>;
export function onceBatch<Tx, M extends OnceMessage>(
  database: LocalDatabase<Tx>,
  messages: readonly M[],
  work: (tx: Tx, fresh: M[]) => Promise<unknown>,
  options?: ApplyOptions,
): Promise<BatchResult>;
export function onceBatch<Tx, M extends OnceMessage>(
  given: Mysql2Pool | LocalDatabase<Tx>,
  messages: readonly M[],
  work: (tx: Tx, fresh: M[]) => Promise<unknown>,
  options: ApplyOptions = {},
): Promise<BatchResult> {
  const list = Array.isArray(messages) ? messages : [];
  return begin('onceBatch', list, (signal, unused) =>
    apply(given, messages, work, { signal, unused, options }),
  );
}

async function apply<Tx, M extends OnceMessage>(
  given: Mysql2Pool | LocalDatabase<Tx>,
  messages: readonly M[],
  work: (tx: Tx, fresh: M[]) => Promise<unknown>,
  {
    options,
    signal: ofHandler,
    unused,
  }: { options: ApplyOptions; signal: AbortSignal | undefined; unused: () => void },
): Promise<BatchResult> {
  const limits = limitsOf(options, 'onceBatch');
  requireFunction(work, 'work', 'onceBatch');
  const group = checkBatch(messages);
  const database = databaseOf(given) as LocalDatabase<Tx>;
  if (options.separate !== true) refuseNested(database as LocalDatabase<never>, 'onceBatch');
  const { front } = options;
  const candidates = new Map<string, M>();
  for (const message of messages) {
    if (isKnown(front, database, message) || candidates.has(message.id)) continue;
    candidates.set(message.id, message);
  }
  const batch: Batch<M> = {
    group,
    candidates,
    fresh: [...candidates.values()],
    isContended: false,
  };
  if (batch.fresh.length > 0) {
    const what = `${batch.fresh.length} messages from ${batch.fresh[0]?.id}`;
    const skipped = await runClaimed<Tx, 'duplicates'>({
      database,
      what,
      signal: signalOf(batch.fresh) ?? ofHandler,
      limits,
      claim: (on) => claim(on, batch),
      isClaimed: (on) => isConsumed(on, group, batch.fresh[0]?.id ?? ''),
      ended: endedInside(what),
      unused,
      missingTable: missingConsumedTable,
      work: (tx) => work(tx, batch.fresh),
    });
    if (skipped !== undefined) batch.fresh = [];
  }
  for (const message of messages) note(front, database, message);
  return resultOf(messages, batch.fresh);
}

interface Batch<M> {
  group: string;
  /** Each id once. */
  candidates: Map<string, M>;
  /** Those of them that this transaction applies. */
  fresh: M[];
  /** An insert has met a duplicate. */
  isContended: boolean;
}

/**
 * Duplicates are few, so all rows are inserted in one statement; it fails whole when one of them is
 * there. From then on it is read first which are. Between the two somebody else may insert one, and
 * then it begins again.
 */
async function claim<M extends OnceMessage>(
  { executor, dialect }: ClaimOn,
  batch: Batch<M>,
): Promise<'duplicates' | undefined> {
  const { group, candidates } = batch;
  // In one order for everybody: batches that share messages wait for each other in a row, where
  // opposite orders would be a deadlock.
  let ids = [...candidates.keys()].sort();
  if (batch.isContended) {
    const there = new Set(await idsThere({ executor, dialect }, group, ids));
    ids = ids.filter((id) => !there.has(id));
    batch.fresh = [...candidates.values()].filter(({ id }) => !there.has(id));
    if (ids.length === 0) return 'duplicates';
  }
  try {
    await executor.execute(
      insertConsumedSql(dialect, ids.length),
      ids.flatMap((id) => [group, id]),
    );
    return undefined;
  } catch (error) {
    if (meaningOf(error) !== 'duplicate key') throw error;
    batch.isContended = true;
    throw new LostRace('one of the messages is applied already', { cause: error });
  }
}

/**
 * Looked for without locks first, because a lock on what is not there keeps others from inserting it
 * (InnoDB's gaps). Then what was found is locked: under READ UNCOMMITTED it may be the row of a
 * transaction that is still open.
 */
async function idsThere(
  { executor, dialect }: ClaimOn,
  group: string,
  ids: readonly string[],
): Promise<string[]> {
  let found = [...ids];
  for (const select of [selectConsumedSql, lockConsumedSql]) {
    if (found.length === 0) break;
    const values = [group, ...found];
    const rows = await executor.select(select(dialect, found.length), CONSUMED_COLUMNS, values);
    found = rows.map(({ id }) => id).sort();
  }
  return found;
}

/** @throws {EscrowError} INVALID_REQUEST, INVALID_ID or INVALID_NAME */
function checkBatch(messages: readonly OnceMessage[]): string {
  if (!Array.isArray(messages)) {
    const given = kindOf(messages);
    throw new EscrowError('INVALID_REQUEST', `onceBatch takes a list of messages, not ${given}`);
  }
  if (messages.length > BATCH_MAX) {
    throw new EscrowError(
      'INVALID_REQUEST',
      `a batch holds up to ${BATCH_MAX} messages, got ${messages.length}`,
    );
  }
  let group: string | undefined;
  for (const message of messages as readonly OnceMessage[]) {
    checkMessage(message, 'onceBatch');
    group ??= message.group;
    if (message.group === group) continue;
    throw new EscrowError(
      'INVALID_REQUEST',
      `a batch is of one consumer group: message ${message.id} is of ${message.group}, and the first of ${group}`,
    );
  }
  return group ?? '';
}

function signalOf(messages: readonly OnceMessage[]): AbortSignal | undefined {
  const signals = new Set<AbortSignal>();
  for (const { signal } of messages) if (signal !== undefined) signals.add(signal);
  const [only] = signals;
  return signals.size > 1 ? AbortSignal.any([...signals]) : only;
}

function resultOf(messages: readonly OnceMessage[], fresh: readonly OnceMessage[]): BatchResult {
  const unnamed = new Set(fresh.map(({ id }) => id));
  const result: BatchResult = { applied: [], duplicates: [] };
  for (const { id } of messages) {
    // A second message with the same id finds it named.
    if (unnamed.delete(id)) result.applied.push(id);
    else result.duplicates.push(id);
  }
  return result;
}
