import { type ConsumerReceipt, parseMessageId } from '@escrowmq/protocol';
import { isExpected } from '../domain/expectations.js';
import type { ReceiptsSaved } from '../domain/group-standing.js';
import type { LateReceipt } from '../domain/late-receipts.js';
import { hasMessage } from '../domain/transaction.js';
import { compensate } from './compensation-operations.js';
import { receiptsOf } from './history.js';
import { expectationsIn, parseDetails } from './rows.js';
import { type Database, type Dialect, idBytes, idText, NEVER, type Sql } from './sql.js';

interface Expected {
  id: string;
  number: number;
  producerGroup: string;
  /** The message asks for compensation. */
  compensates: boolean;
  receipt: ConsumerReceipt;
  /** An operator has closed the transaction. */
  closed: boolean;
}

interface Named {
  id: string;
  number: number;
  receipt: ConsumerReceipt;
}

interface WantingRow {
  id: Uint8Array;
  producer_group: string;
  details: string | null;
  message_count: number;
  closed_at: number | null;
}

/**
 * Only receipts that somebody waits for are kept: of a group that is expected to consume this
 * message, of a transaction that was committed.
 *
 * The transactions stay locked, in order of their ids, until the receipts are saved. Without that,
 * two groups that save the last two receipts at the same moment do not see each other's, and
 * neither settles the transaction.
 */
async function expectedOf(
  sql: Sql,
  batch: readonly ConsumerReceipt[],
  { forUpdate, inIds }: Dialect,
): Promise<{ expected: Expected[]; unmet: Named[] }> {
  const named = batch.flatMap((receipt): Named[] => {
    const message = parseMessageId(receipt.messageId);
    return message === undefined
      ? []
      : [{ id: message.transactionId, number: message.number, receipt }];
  });
  const ids = [...new Set(named.map(({ id }) => id))];
  if (ids.length === 0) return { expected: [], unmet: [] };
  const { list, values } = inIds(ids);
  const rows = await sql.all<WantingRow>(
    `select id, producer_group, details, message_count,
       (select closed_at from escrow_unsettled where transaction_id = id) as closed_at
     from escrow_transaction
     where id ${list} and receipts_wanted > 0 and decision = 'commit'
     order by id ${forUpdate}`,
    values,
  );
  const byId = new Map(rows.map((row) => [idText(row.id), row]));
  const unmet = named.filter(({ id }) => !byId.has(id));
  const expected = named.flatMap(({ id, number, receipt }): Expected[] => {
    const row = byId.get(id);
    if (row === undefined || number >= row.message_count) return [];
    const details = parseDetails(row.details);
    const { consumerGroup } = receipt;
    const expectations = expectationsIn(details, row.message_count);
    if (!isExpected(expectations, { consumerGroup, number })) return [];
    const { compensates = 0 } = details;
    const producerGroup = row.producer_group;
    const closed = row.closed_at !== null && row.closed_at !== NEVER;
    const one = { id, number, producerGroup, receipt, closed };
    return [{ ...one, compensates: hasMessage(compensates, number) }];
  });
  return { expected, unmet };
}

interface GoneRow {
  id: Uint8Array;
  kind: 'row' | 'tombstone' | 'unsettled';
  closed_at: number | null;
  /** Groups that had failed, as JSON. */
  failed: string | null;
}

const WHAT_IS_LEFT = (list: string) => `
  select id, 'row' as kind, null as closed_at, null as failed
    from escrow_transaction where id ${list}
  union all select id, 'tombstone', null, null from escrow_tombstone where id ${list}
  union all select transaction_id, 'unsettled', closed_at, failed
    from escrow_unsettled where transaction_id ${list}`;

/**
 * Receipts whose transaction is gone. One that has a row does not wait for receipts, so its own are of no
 * use to anybody; and a group that failed before the purge says nothing new when it says so again.
 */
async function lateOfGone(
  sql: Sql,
  { inIds }: Dialect,
  unmet: readonly Named[],
): Promise<LateReceipt[]> {
  if (unmet.length === 0) return [];
  const { list, values } = inIds([...new Set(unmet.map(({ id }) => id))]);
  const rows = await sql.all<GoneRow>(WHAT_IS_LEFT(list), [...values, ...values, ...values]);
  const left = (id: string, kind: GoneRow['kind']) =>
    rows.find((row) => row.kind === kind && idText(row.id) === id);
  return unmet.flatMap(({ id, receipt: { consumerGroup, kind } }): LateReceipt[] => {
    if (left(id, 'row') !== undefined) return [];
    const about = { id, consumerGroup, kind };
    if (left(id, 'tombstone') === undefined) return [{ why: 'unknown', ...about }];
    const record = left(id, 'unsettled');
    if (record === undefined) return [{ why: 'purged', ...about }];
    const failed: string[] = JSON.parse(record.failed ?? '[]');
    const saidBefore =
      record.closed_at === NEVER && kind === 'failed' && failed.includes(consumerGroup);
    return saidBefore ? [] : [{ why: 'unsettled', ...about }];
  });
}

/** Receipts of closed transactions, but for those that say once more what was said before. */
async function lateOfClosed(
  sql: Sql,
  dialect: Dialect,
  expected: readonly Expected[],
): Promise<LateReceipt[]> {
  const known = await receiptsOf(sql, [...new Set(expected.map(({ id }) => id))], dialect);
  return expected.flatMap(({ id, number, receipt: { consumerGroup, kind } }): LateReceipt[] => {
    const saidBefore = known
      .get(id)
      ?.some(
        (one) =>
          one.message === number &&
          one.consumerGroup === consumerGroup &&
          (one.kind === kind || one.kind === 'consumed'),
      );
    return saidBefore === true ? [] : [{ why: 'closed', id, consumerGroup, kind }];
  });
}

/** What an INT column holds: one absurd count must not stop the batch that it comes with. */
const ATTEMPTS_MAX = 2 ** 31 - 1;

const attemptsOf = ({ attempts }: ConsumerReceipt): number | null =>
  attempts === undefined ? null : Math.min(attempts, ATTEMPTS_MAX);

/** A group that gave up and consumed later, from its dead letters, has consumed. */
const consumedAfterAll = (now: string) => `
  update escrow_receipt
  set kind = 'consumed', at = ${now}, attempts = coalesce(?, attempts), cause = null
  where transaction_id = ? and consumer_group = ? and message_number = ? and kind = 'failed'`;

/** Settled by receipts: every expected group has consumed every message that names it. Closed stays closed. */
const settle = (now: string, list: string) => `
  update escrow_transaction set settled_at = ${now}
  where id ${list} and settled_at = ${NEVER} and receipts_wanted > 0
    and not exists (
      select 1 from escrow_unsettled
      where transaction_id = escrow_transaction.id and closed_at < ${NEVER})
    and receipts_wanted = (
      select count(*) from escrow_receipt
      where escrow_receipt.transaction_id = escrow_transaction.id
        and escrow_receipt.kind = 'consumed')`;

export async function saveReceipts(
  database: Database,
  batch: readonly ConsumerReceipt[],
): Promise<ReceiptsSaved> {
  const { dialect } = database;
  const { now } = dialect;
  return database.transaction(async (sql) => {
    const { expected, unmet } = await expectedOf(sql, batch, dialect);
    const late = [
      ...(await lateOfGone(sql, dialect, unmet)),
      ...(await lateOfClosed(
        sql,
        dialect,
        expected.filter(({ closed }) => closed),
      )),
    ];
    if (expected.length === 0) return { settled: [], reversed: [], late };
    await sql.insertRows({
      table: 'escrow_receipt',
      columns: [
        'transaction_id',
        'consumer_group',
        'message_number',
        'kind',
        'attempts',
        'cause',
        'at',
      ],
      expressions: ['?', '?', '?', '?', '?', '?', `${now} + ?`],
      rows: expected.map(({ id, number, receipt }) => [
        idBytes(id),
        receipt.consumerGroup,
        number,
        receipt.kind,
        attemptsOf(receipt),
        receipt.cause ?? null,
        0,
      ]),
      onDuplicate: 'ignore',
    });
    for (const { id, number, receipt } of expected) {
      if (receipt.kind !== 'consumed') continue;
      // Almost always changes nothing; it costs one look at the primary key.
      const key = [idBytes(id), receipt.consumerGroup, number];
      await sql.run(consumedAfterAll(now), [attemptsOf(receipt), ...key]);
    }
    const reversed = await compensate(sql, dialect, compensated(expected));
    const { list, values } = dialect.inIds([...new Set(expected.map(({ id }) => id))]);
    await sql.run(settle(now, list), values);
    const settled = await sql.all<{ id: Uint8Array }>(
      `select id from escrow_transaction where id ${list} and settled_at <> ${NEVER}`,
      values,
    );
    return { settled: settled.map(({ id }) => idText(id)), reversed, late };
  });
}

const compensated = (expected: readonly Expected[]) =>
  expected
    .filter(({ compensates }) => compensates)
    .map(({ id, number, producerGroup, receipt: { consumerGroup, kind } }) => ({
      id,
      message: number,
      consumerGroup,
      producerGroup,
      kind,
    }));
