import type { Compensation, ConsumerReceipt } from '@escrowmq/protocol';
import type {
  CompensationKey,
  CompensationToSave,
  DueCompensation,
  Reversed,
} from '../domain/compensations.js';
import type { Store } from '../domain/ports.js';
import type { StoreTime } from '../domain/transaction.js';
import { historyRows, receiptsOf } from './history.js';
import { parseDetails } from './rows.js';
import {
  type Database,
  type Dialect,
  idBytes,
  idText,
  marks,
  type Sql,
  type SqlValue,
} from './sql.js';

interface CompensationRow {
  transaction_id: Uint8Array;
  consumer_group: string;
  message_number: number;
  producer_group: string;
  state: 'owed' | 'done' | 'withdrawn';
  due_at: number;
  attempts: number;
  failures: number;
  last_failure: string | null;
  alerted: number;
  requested_at: number;
  ended_at: number;
}

const COLUMNS = `transaction_id, consumer_group, message_number, producer_group, state, due_at,
  attempts, failures, last_failure, alerted, requested_at, ended_at`;

const THIS = 'transaction_id = ? and consumer_group = ? and message_number = ?';
const keyValues = ({ id, consumerGroup, message }: CompensationKey): SqlValue[] => [
  idBytes(id),
  consumerGroup,
  message,
];

// ---- with receipts

/** A receipt on a message that has `compensate`. */
export interface CompensatedReceipt extends CompensationKey {
  producerGroup: string;
  kind: ConsumerReceipt['kind'];
}

/**
 * What receipts mean for compensations, in the database transaction that saves them, after they are
 * saved. Only what stands as failed is owed: a group that consumed has consumed, whatever comes late.
 */
export async function compensate(
  sql: Sql,
  { now }: Dialect,
  receipts: readonly CompensatedReceipt[],
): Promise<Reversed[]> {
  const failed = receipts.filter(({ kind }) => kind === 'failed');
  const owed: CompensatedReceipt[] = [];
  for (const receipt of failed) {
    const [stands] = await sql.all<{ kind: ConsumerReceipt['kind'] }>(
      `select kind from escrow_receipt where ${THIS}`,
      keyValues(receipt),
    );
    if (stands?.kind === 'failed') owed.push(receipt);
  }
  await sql.insertRows({
    table: 'escrow_compensation',
    columns: [
      'transaction_id',
      'consumer_group',
      'message_number',
      'producer_group',
      'state',
      'due_at',
      'requested_at',
    ],
    expressions: ['?', '?', '?', '?', '?', `${now} + ?`, `${now} + ?`],
    rows: owed.map((key) => [...keyValues(key), key.producerGroup, 'owed', 0, 0]),
    onDuplicate: 'ignore',
  });
  const reversed: Reversed[] = [];
  for (const receipt of receipts) {
    if (receipt.kind === 'consumed') reversed.push(...(await withdraw(sql, now, receipt)));
  }
  return reversed;
}

async function withdraw(sql: Sql, now: string, receipt: CompensatedReceipt): Promise<Reversed[]> {
  const key = keyValues(receipt);
  await sql.run(
    `update escrow_compensation set state = 'withdrawn', ended_at = ${now}
     where ${THIS} and state = 'owed'`,
    key,
  );
  const [row] = await sql.all<Pick<CompensationRow, 'state' | 'attempts'>>(
    `select state, attempts from escrow_compensation where ${THIS}`,
    key,
  );
  if (row === undefined) return [];
  // An operator may have done by hand what nobody was ever called for.
  if (row.state !== 'done' && row.attempts === 0) return [];
  const { id, message, consumerGroup, producerGroup } = receipt;
  return [{ id, message, consumerGroup, producerGroup, acknowledged: row.state === 'done' }];
}

// ---- claims

const dueRows = (now: string, exceptGroups: readonly string[]) => `
  select ${COLUMNS}, ${now} as store_now from escrow_compensation
  where state = 'owed' and due_at <= ${now}
    ${exceptGroups.length === 0 ? '' : `and producer_group not in (${marks(exceptGroups.length)})`}
  order by due_at limit ?`;

/** The lease, and the attempt that it is for: counted before the call, so that a crash forgets none. */
const lease = (now: string) => `
  update escrow_compensation set due_at = ${now} + ?, attempts = attempts + 1
  where ${THIS} and state = 'owed'`;

export async function claimDueCompensations(
  database: Database,
  { limit, leaseMs, exceptGroups }: Parameters<Store['claimDueCompensations']>[0],
): Promise<{ now: StoreTime; due: DueCompensation[] }> {
  const { now, skipLocked } = database.dialect;
  return database.transaction(async (sql) => {
    const rows = await sql.all<CompensationRow & { store_now: number }>(
      `${dueRows(now, exceptGroups)} ${skipLocked}`,
      [...exceptGroups, limit],
    );
    const [first] = rows;
    if (first === undefined) return { now: 0, due: [] };
    for (const row of rows) await sql.run(lease(now), [leaseMs, ...keyValues(keyOf(row))]);
    return { now: first.store_now, due: await withTransactions(sql, database.dialect, rows) };
  });
}

const keyOf = (row: CompensationRow): CompensationKey => ({
  id: idText(row.transaction_id),
  consumerGroup: row.consumer_group,
  message: row.message_number,
});

/** What the call tells beside the compensation itself. Retention leaves these transactions alone. */
async function withTransactions(
  sql: Sql,
  dialect: Dialect,
  rows: readonly CompensationRow[],
): Promise<DueCompensation[]> {
  const ids = [...new Set(rows.map((row) => idText(row.transaction_id)))];
  const { list, values } = dialect.inIds(ids);
  const found = await sql.all<{ id: Uint8Array; prepared_at: number; details: string | null }>(
    `select id, prepared_at, details from escrow_transaction where id ${list}`,
    values,
  );
  const transactions = new Map(found.map((row) => [idText(row.id), row]));
  const receipts = await receiptsOf(sql, ids, dialect);
  return rows.map((row) => {
    const key = keyOf(row);
    const transaction = transactions.get(key.id);
    if (transaction === undefined) throw new Error(`compensation of ${key.id} has no transaction`);
    const { businessKeys, checkContext, trace, sent } = parseDetails(transaction.details);
    const receipt = receipts
      .get(key.id)
      ?.find((one) => one.message === key.message && one.consumerGroup === key.consumerGroup);
    return {
      ...key,
      producerGroup: row.producer_group,
      ...(checkContext === undefined ? {} : { checkContext }),
      businessKeys: businessKeys ?? [],
      preparedAt: transaction.prepared_at,
      trace: trace ?? {},
      ...(sent === undefined ? {} : { sent }),
      ...(receipt?.attempts === undefined ? {} : { failedAttempts: receipt.attempts }),
      ...(receipt?.cause === undefined ? {} : { cause: receipt.cause }),
      requestedAt: row.requested_at,
      attempts: row.attempts + 1,
      failures: row.failures,
      alerted: row.alerted === 1,
    };
  });
}

/** Guarded by the attempt: whoever claimed it later has the word. */
const release = (now: string) => `
  update escrow_compensation set due_at = ${now}, attempts = attempts - 1
  where ${THIS} and state = 'owed' and attempts = ?`;

export async function releaseCompensations(
  database: Database,
  claimed: readonly DueCompensation[],
): Promise<void> {
  if (claimed.length === 0) return;
  const { now } = database.dialect;
  await database.transaction(async (sql) => {
    for (const due of claimed) await sql.run(release(now), [...keyValues(due), due.attempts]);
  });
}

// ---- results

const acknowledge = (now: string) => `
  update escrow_compensation set state = 'done', ended_at = ${now}
  where ${THIS} and state <> 'done'`;

/** Guarded by the attempt, as above. */
const postpone = `
  update escrow_compensation
  set due_at = ?, attempts = ?, failures = ?, last_failure = ?, alerted = ?
  where ${THIS} and state = 'owed' and attempts = ?`;

async function saveOne(sql: Sql, now: string, { due, result }: CompensationToSave): Promise<void> {
  const key = keyValues(due);
  if (result.kind === 'acknowledged') {
    await sql.run(acknowledge(now), key);
    return;
  }
  const { called, dueAt, lastFailure, alerted } = result;
  await sql.run(postpone, [
    dueAt,
    called ? due.attempts : due.attempts - 1,
    due.failures + 1,
    lastFailure,
    alerted ? 1 : 0,
    ...key,
    due.attempts,
  ]);
}

export async function saveCompensations(
  database: Database,
  batch: readonly CompensationToSave[],
): Promise<CompensationKey[]> {
  if (batch.length === 0) return [];
  const { now } = database.dialect;
  return database.transaction(async (sql) => {
    const consumed: CompensationKey[] = [];
    for (const item of batch) {
      await saveOne(sql, now, item);
      if (item.result.kind !== 'acknowledged') continue;
      const { id, message, consumerGroup } = item.due;
      // A receipt that is being saved at this moment waits for our row, and then finds it done.
      const [receipt] = await sql.all<{ kind: string }>(
        `select kind from escrow_receipt where ${THIS}`,
        keyValues(item.due),
      );
      if (receipt?.kind === 'consumed') consumed.push({ id, message, consumerGroup });
    }
    return consumed;
  });
}

// ---- an operator's word

/** Guarded by the state: what is acknowledged or withdrawn stays what it is. */
const end = (now: string) => `
  update escrow_compensation set state = 'done', ended_at = ${now}
  where ${THIS} and state = 'owed'`;

export async function endCompensations(
  database: Database,
  { id, history }: Parameters<Store['endCompensations']>[0],
): Promise<CompensationKey[]> {
  const { now } = database.dialect;
  return database.transaction(async (sql) => {
    const rows = await sql.all<Pick<CompensationRow, 'consumer_group' | 'message_number'>>(
      `select consumer_group, message_number from escrow_compensation
       where transaction_id = ? order by consumer_group, message_number`,
      [idBytes(id)],
    );
    const ended: CompensationKey[] = [];
    for (const row of rows) {
      const key = { id, consumerGroup: row.consumer_group, message: row.message_number };
      if ((await sql.run(end(now), keyValues(key))) === 1) ended.push(key);
    }
    if (ended.length === 0) return [];
    const compensations = ended.map(({ consumerGroup, message }) => ({ consumerGroup, message }));
    const event = { ...history, detail: { ...history.detail, compensations } };
    await sql.insertRows(historyRows([{ id, history: [event] }]));
    return ended;
  });
}

/** Compensations of a transaction as its view shows them. */
export async function compensationsOf(sql: Sql, id: string): Promise<Compensation[]> {
  const rows = await sql.all<CompensationRow>(
    `select ${COLUMNS} from escrow_compensation where transaction_id = ?
     order by consumer_group, message_number`,
    [idBytes(id)],
  );
  return rows.map((row) => ({
    consumerGroup: row.consumer_group,
    message: row.message_number,
    state: row.state,
    attempts: row.attempts,
    ...(row.last_failure === null ? {} : { lastFailure: row.last_failure }),
    at: row.state === 'owed' ? row.requested_at : row.ended_at,
  }));
}

/**
 * An endpoint has come: what was never called, for want of one, is due at once, and will be alerted
 * of again if that does not answer.
 */
export async function compensationsDueNow(
  database: Database,
  producerGroup: string,
): Promise<void> {
  const { now } = database.dialect;
  await database.run(
    `update escrow_compensation set due_at = ${now}, failures = 0, alerted = 0
     where state = 'owed' and due_at > ${now} and attempts = 0 and producer_group = ?`,
    [producerGroup],
  );
}

export async function countOwed(sql: Sql): Promise<number> {
  const [row] = await sql.all<{ value: number }>(
    "select count(*) as value from escrow_compensation where state = 'owed'",
  );
  return row?.value ?? 0;
}
