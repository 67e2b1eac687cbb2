import type { StateName } from '@escrowmq/protocol';
import {
  type Closing,
  type ClosingResult,
  closedStandings,
  closeUnsettled,
  type OverdueSettlement,
  saidBefore,
} from '../domain/closing.js';
import { standingsOf, type Unsettled } from '../domain/group-standing.js';
import type { Store } from '../domain/ports.js';
import { historyRows, receiptsOf } from './history.js';
import { findOld, START } from './old-rows.js';
import {
  CLOSED_COLUMNS,
  type ClosedColumns,
  closedOf,
  expectationsIn,
  parseDetails,
} from './rows.js';
import { type Database, type Dialect, idBytes, idText, marks, NEVER, type Sql } from './sql.js';

/*
 * Transactions that have not settled: on a business key, closed by an operator, overdue, and what is
 * still known of them after their purge. `escrow_unsettled` has a row for those that were told to be
 * overdue, were closed, or were purged without having settled; the last stays, with its business
 * keys, as long as the tombstone, so that the absence of a row never reads as "settled".
 */

interface UnsettledRow extends ClosedColumns {
  id: Uint8Array;
  producer_group: string;
  state: StateName;
  message_count: number;
  cancelled: number;
  details: string | null;
}

const UNSETTLED_COLUMNS = 'id, producer_group, state, message_count, cancelled, details';

/** Of a transaction with its row. */
const UNSETTLED = `
  select ${UNSETTLED_COLUMNS}, ${CLOSED_COLUMNS}
  from escrow_transaction left join escrow_unsettled on transaction_id = id`;

async function withGroups<Row extends UnsettledRow>(
  sql: Sql,
  dialect: Dialect,
  rows: readonly Row[],
): Promise<{ row: Row; unsettled: Unsettled }[]> {
  const ids = [...new Set(rows.map(({ id }) => idText(id)))];
  const receipts = await receiptsOf(sql, ids, dialect);
  return rows.map((row) => {
    const id = idText(row.id);
    const closed = closedOf(row);
    const said = receipts.get(id) ?? [];
    const groups = standingsOf(
      expectationsIn(parseDetails(row.details), row.message_count),
      row.cancelled,
      closed === undefined ? said : saidBefore(closed, said),
    );
    const standings = closed === undefined ? groups : closedStandings(closed, groups);
    const those = (state: 'waiting' | 'failed') =>
      standings.filter((group) => group.state === state).map(({ consumerGroup }) => consumerGroup);
    const unsettled = {
      id,
      producerGroup: row.producer_group,
      state: row.state,
      waitingFor: those('waiting'),
      failed: those('failed'),
      ...(closed === undefined ? {} : { closed }),
    };
    return { row, unsettled };
  });
}

export async function unsettled(
  database: Database,
  ids: readonly string[],
): Promise<Map<string, Unsettled>> {
  if (ids.length === 0) return new Map();
  const { dialect } = database;
  const { list, values } = dialect.inIds(ids);
  const rows = await database.all<UnsettledRow>(
    `${UNSETTLED} where id ${list} and settled_at = ${NEVER}`,
    values,
  );
  const found = await withGroups(database, dialect, rows);
  return new Map(found.map(({ unsettled }) => [unsettled.id, unsettled]));
}

/**
 * A key on which more than this is open at once is not a business key; the oldest are shown. For
 * each key by itself: under one limit for all, a hot key made others look settled.
 */
const UNSETTLED_SHOWN_MAX = 200;

/** Of a transaction that may be purged: then the columns of its row are null. */
type KeyRow = (UnsettledRow | PurgedRow) & { business_key: Uint8Array };
interface PurgedRow extends ClosedColumns {
  id: Uint8Array;
  producer_group: string;
  state: null;
  failed: string | null;
}

const purgedOf = (row: PurgedRow): Unsettled => {
  const closed = closedOf(row);
  return {
    id: idText(row.id),
    producerGroup: row.producer_group,
    // What was rolled back has settled, so it was this.
    state: 'forwarded',
    waitingFor: [],
    failed: JSON.parse(row.failed ?? '[]'),
    ...(closed === undefined ? {} : { closed }),
    purged: true,
  };
};

/** First what may still settle: of what can't, there may be ever more on a key. */
const unsettledOnKeys = (keys: number, ofGroup: boolean) => `
  select business_key, ${UNSETTLED_COLUMNS}, ${CLOSED_COLUMNS}, failed from (
    select k.business_key, k.transaction_id as id,
      coalesce(t.producer_group, u.owner_group) as producer_group,
      t.state, t.message_count, t.cancelled, t.details,
      u.closed_at, u.closed_by, u.closed_reason, u.failed,
      row_number() over (
        partition by k.business_key
        order by case when t.id is null or u.closed_at < ${NEVER} then 1 else 0 end, k.transaction_id
      ) as place
    from escrow_business_key k
      left join escrow_transaction t on t.id = k.transaction_id
      left join escrow_unsettled u on u.transaction_id = k.transaction_id
    where k.business_key in (${marks(keys)})
      and (t.settled_at = ${NEVER} or (t.id is null and u.transaction_id is not null))
      ${ofGroup ? 'and coalesce(t.producer_group, u.owner_group) = ?' : ''}
  ) as unsettled where place <= ${UNSETTLED_SHOWN_MAX} order by id`;

export async function unsettledOn(
  database: Database,
  businessKeys: readonly string[],
  producerGroup?: string,
): Promise<Map<string, Unsettled[]>> {
  const answer = new Map<string, Unsettled[]>(businessKeys.map((key) => [key, []]));
  if (businessKeys.length === 0) return answer;
  const rows = await database.all<KeyRow>(
    unsettledOnKeys(businessKeys.length, producerGroup !== undefined),
    [
      ...businessKeys.map((key) => Buffer.from(key)),
      ...(producerGroup === undefined ? [] : [producerGroup]),
    ],
  );
  const there = rows.filter((row) => row.state !== null);
  const shown = new Map(
    (await withGroups(database, database.dialect, there)).map(({ unsettled }) => [
      unsettled.id,
      unsettled,
    ]),
  );
  for (const row of rows) {
    const one = row.state === null ? purgedOf(row) : shown.get(idText(row.id));
    if (one !== undefined) answer.get(Buffer.from(row.business_key).toString())?.push(one);
  }
  return answer;
}

// ---- an operator's word

async function compensationsOwedBy(sql: Sql, id: string): Promise<number> {
  const [row] = await sql.all<{ value: number }>(
    `select count(*) as value from escrow_compensation where transaction_id = ? and state = 'owed'`,
    [idBytes(id)],
  );
  return row?.value ?? 0;
}

async function closedRecord(sql: Sql, id: string) {
  const [row] = await sql.all<ClosedColumns>(
    `select ${CLOSED_COLUMNS} from escrow_unsettled where transaction_id = ?`,
    [idBytes(id)],
  );
  return row === undefined ? undefined : closedOf(row);
}

async function closedWhenGone(sql: Sql, id: string): Promise<ClosingResult> {
  const closed = await closedRecord(sql, id);
  if (closed !== undefined) return { kind: 'closed', closed, purged: true };
  const stones = await sql.all('select id from escrow_tombstone where id = ?', [idBytes(id)]);
  return { kind: stones.length === 0 ? 'unknown' : 'purged' };
}

/**
 * The row is locked first, as by receipts: so either a receipt has settled it, or the close is there
 * when the receipt would.
 */
export function close(
  database: Database,
  { id, operator, reason }: Closing,
): Promise<ClosingResult> {
  const { now, byId, forUpdate } = database.dialect;
  return database.transaction(async (sql): Promise<ClosingResult> => {
    const [row] = await sql.all<{
      state: StateName;
      producer_group: string;
      settled_at: number;
      store_now: number;
    }>(
      `select state, producer_group, settled_at, ${now} as store_now
       from escrow_transaction ${byId} where id = ? ${forUpdate}`,
      [idBytes(id)],
    );
    if (row === undefined) return closedWhenGone(sql, id);
    const ruling = closeUnsettled({
      state: row.state,
      settled: row.settled_at !== NEVER,
      closed: await closedRecord(sql, id),
      compensationsOwed: await compensationsOwedBy(sql, id),
    });
    if (ruling.kind === 'refuse') return { kind: 'refused', why: ruling.why };
    if (ruling.kind === 'keep') return { kind: 'closed', closed: ruling.closed };
    const closed = { at: row.store_now, by: `operator ${operator}`, reason };
    await insertMarks(sql, [{ id, producerGroup: row.producer_group }]);
    await sql.run(
      `update escrow_unsettled set closed_at = ?, closed_by = ?, closed_reason = ?
       where transaction_id = ? and closed_at = ${NEVER}`,
      [closed.at, closed.by, closed.reason, idBytes(id)],
    );
    const detail = { action: 'close', operator, reason };
    const history = [{ at: closed.at, event: 'resolve' as const, detail }];
    await sql.insertRows(historyRows([{ id, history }]));
    return { kind: 'closed', closed };
  });
}

/** A row in `escrow_unsettled` for each; one that is there stays as it is. */
const insertMarks = (
  sql: Sql,
  transactions: readonly { id: string; producerGroup: string }[],
): Promise<void> =>
  sql.insertRows({
    table: 'escrow_unsettled',
    columns: ['transaction_id', 'owner_group'],
    rows: transactions.map(({ id, producerGroup }) => [idBytes(id), producerGroup]),
    onDuplicate: 'ignore',
  });

// ---- overdue

/** Rows walked along in one call, as windows of a thousand; the next one goes on from there. */
const WINDOWS_MAX = 100;

const OWES_A_WORD = (now: string) => `state = 'forwarded' and settled_at = ${NEVER}
  and finished_at <= ${now} - ?
  and not exists (select 1 from escrow_unsettled where transaction_id = escrow_transaction.id)
  and receipts_wanted > (
    select count(*) from escrow_receipt where transaction_id = escrow_transaction.id)`;

type OverdueRow = UnsettledRow & { topics: string };

/** Marks what is not marked yet, under the locks of the rows, and tells it before that is durable. */
function markOverdue(
  database: Database,
  { ids, olderThanMs, tell }: { ids: readonly string[]; olderThanMs: number; tell: Tell },
): Promise<number> {
  const { dialect } = database;
  const { now, byId, skipLocked, inIds } = dialect;
  const { list, values } = inIds(ids);
  return database.transaction(async (sql) => {
    const locked = await sql.all<Omit<OverdueRow, keyof ClosedColumns>>(
      `select ${UNSETTLED_COLUMNS}, topics from escrow_transaction ${byId}
       where id ${list} and ${OWES_A_WORD(now)} order by id ${skipLocked}`,
      [...values, olderThanMs],
    );
    if (locked.length === 0) return 0;
    // Asked once more of what is locked now: where locked rows are waited for instead of skipped,
    // somebody else may have marked them meanwhile, and the look above does not see it.
    const mine = inIds(locked.map(({ id }) => idText(id)));
    const marked = await sql.all<{ id: Uint8Array }>(
      `select transaction_id as id from escrow_unsettled where transaction_id ${mine.list}`,
      mine.values,
    );
    const known = new Set(marked.map(({ id }) => idText(id)));
    const rows = locked
      .filter(({ id }) => !known.has(idText(id)))
      .map((row) => ({ ...row, closed_at: null, closed_by: null, closed_reason: null }));
    const overdue = (await withGroups(sql, dialect, rows)).map(({ row, unsettled }) => ({
      id: unsettled.id,
      producerGroup: unsettled.producerGroup,
      topics: row.topics.split(',').filter((topic) => topic !== ''),
      waitingFor: unsettled.waitingFor,
    }));
    await insertMarks(sql, overdue);
    if (overdue.length > 0) tell(overdue);
    return overdue.length;
  });
}

type Tell = (overdue: readonly OverdueSettlement[]) => void;

/** Goes on where the call before it ended, and from the old end again after the newest. */
export function createTellOverdue(database: Database): Store['tellOverdue'] {
  let after: Uint8Array = START;
  return async ({ olderThanMs, limit }, tell) => {
    const condition = { sql: OWES_A_WORD(database.dialect.now), values: [olderThanMs] };
    const { ids, goOnAfter = START } = await findOld(database, {
      ...{ condition, after, olderThanMs, limit, windowsMax: WINDOWS_MAX },
    });
    const told = ids.length === 0 ? 0 : await markOverdue(database, { ids, olderThanMs, tell });
    after = goOnAfter;
    return told;
  };
}

// ---- after the purge

/**
 * In the database transaction that purges these rows, before they go: of what has not settled, how its
 * groups stand; and the business keys of all others.
 */
export async function keepUnsettled(
  sql: Sql,
  dialect: Dialect,
  ids: readonly string[],
): Promise<void> {
  const { list, values } = dialect.inIds(ids);
  const rows = await sql.all<UnsettledRow>(
    `${UNSETTLED} where id ${list} and settled_at = ${NEVER}`,
    values,
  );
  const kept = (await withGroups(sql, dialect, rows)).map(({ unsettled }) => unsettled);
  const keptIds = new Set(kept.map(({ id }) => id));
  const settled = ids.filter((id) => !keptIds.has(id));
  if (settled.length > 0) {
    const those = dialect.inIds(settled);
    for (const table of ['escrow_business_key', 'escrow_unsettled']) {
      await sql.run(`delete from ${table} where transaction_id ${those.list}`, those.values);
    }
  }
  await insertMarks(sql, kept);
  for (const { id, failed } of kept) {
    await sql.run('update escrow_unsettled set failed = ? where transaction_id = ?', [
      JSON.stringify(failed),
      idBytes(id),
    ]);
  }
}

/** With their tombstones. An id that came to life again keeps what is its own. */
export async function forgetUnsettled(
  sql: Sql,
  { inIds }: Dialect,
  ids: readonly string[],
): Promise<void> {
  const { list, values } = inIds(ids);
  const rows = await sql.all<{ id: Uint8Array }>(
    `select transaction_id as id from escrow_unsettled where transaction_id ${list}
       and transaction_id not in (select id from escrow_transaction where id ${list})`,
    [...values, ...values],
  );
  if (rows.length === 0) return;
  const gone = inIds(rows.map(({ id }) => idText(id)));
  for (const table of ['escrow_business_key', 'escrow_unsettled']) {
    await sql.run(`delete from ${table} where transaction_id ${gone.list}`, gone.values);
  }
}
