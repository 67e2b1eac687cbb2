import { type ConsumerReceipt, parseMessageId, type StateName } from '@escrowmq/protocol';
import { isExpected } from '../domain/expectations.js';
import { type ReceiptsSaved, standingsOf, type Unsettled } from '../domain/group-standing.js';
import { hasMessage } from '../domain/transaction.js';
import { compensate } from './compensation-operations.js';
import { receiptsOf } from './history.js';
import { expectationsIn, parseDetails } from './rows.js';
import { type Database, type Dialect, idBytes, idText, marks, NEVER, type Sql } from './sql.js';

interface Expected {
  id: string;
  number: number;
  producerGroup: string;
  /** The message asks for compensation. */
  compensates: boolean;
  receipt: ConsumerReceipt;
}

interface WantingRow {
  id: Uint8Array;
  producer_group: string;
  details: string | null;
  message_count: number;
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
): Promise<Expected[]> {
  const named = batch.flatMap((receipt) => {
    const message = parseMessageId(receipt.messageId);
    return message === undefined
      ? []
      : [{ id: message.transactionId, number: message.number, receipt }];
  });
  const ids = [...new Set(named.map(({ id }) => id))];
  if (ids.length === 0) return [];
  const { list, values } = inIds(ids);
  const rows = await sql.all<WantingRow>(
    `select id, producer_group, details, message_count from escrow_transaction
     where id ${list} and receipts_wanted > 0 and decision = 'commit'
     order by id ${forUpdate}`,
    values,
  );
  const byId = new Map(rows.map((row) => [idText(row.id), row]));
  return named.flatMap(({ id, number, receipt }) => {
    const row = byId.get(id);
    if (row === undefined || number >= row.message_count) return [];
    const details = parseDetails(row.details);
    const { consumerGroup } = receipt;
    const expectations = expectationsIn(details, row.message_count);
    if (!isExpected(expectations, { consumerGroup, number })) return [];
    const { compensates = 0 } = details;
    const producerGroup = row.producer_group;
    return [{ id, number, producerGroup, compensates: hasMessage(compensates, number), receipt }];
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

/** Settled by receipts: every expected group has consumed every message that names it. */
const settle = (now: string, list: string) => `
  update escrow_transaction set settled_at = ${now}
  where id ${list} and settled_at = ${NEVER} and receipts_wanted > 0
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
    const expected = await expectedOf(sql, batch, dialect);
    if (expected.length === 0) return { settled: [], reversed: [] };
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
    return { settled: settled.map(({ id }) => idText(id)), reversed };
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

interface UnsettledRow {
  id: Uint8Array;
  producer_group: string;
  state: StateName;
  message_count: number;
  cancelled: number;
  details: string | null;
}

const UNSETTLED_COLUMNS = 'id, producer_group, state, message_count, cancelled, details';

async function withGroups<Row extends UnsettledRow>(
  database: Database,
  rows: readonly Row[],
): Promise<{ row: Row; unsettled: Unsettled }[]> {
  const ids = [...new Set(rows.map(({ id }) => idText(id)))];
  const receipts = await receiptsOf(database, ids, database.dialect);
  return rows.map((row) => {
    const id = idText(row.id);
    const expectations = expectationsIn(parseDetails(row.details), row.message_count);
    const groups = standingsOf(expectations, row.cancelled, receipts.get(id) ?? []);
    const those = (state: 'waiting' | 'failed') =>
      groups.filter((group) => group.state === state).map(({ consumerGroup }) => consumerGroup);
    const unsettled = {
      id,
      producerGroup: row.producer_group,
      state: row.state,
      waitingFor: those('waiting'),
      failed: those('failed'),
    };
    return { row, unsettled };
  });
}

export async function unsettled(
  database: Database,
  ids: readonly string[],
): Promise<Map<string, Unsettled>> {
  if (ids.length === 0) return new Map();
  const { list, values } = database.dialect.inIds(ids);
  const rows = await database.all<UnsettledRow>(
    `select ${UNSETTLED_COLUMNS} from escrow_transaction
     where id ${list} and settled_at = ${NEVER}`,
    values,
  );
  const found = await withGroups(database, rows);
  return new Map(found.map(({ unsettled }) => [unsettled.id, unsettled]));
}

/**
 * A key on which more than this is open at once is not a business key; the oldest are shown. For
 * each key by itself: under one limit for all, a hot key made others look settled.
 */
const UNSETTLED_SHOWN_MAX = 200;

export async function unsettledOn(
  database: Database,
  businessKeys: readonly string[],
  producerGroup?: string,
): Promise<Map<string, Unsettled[]>> {
  const answer = new Map<string, Unsettled[]>(businessKeys.map((key) => [key, []]));
  if (businessKeys.length === 0) return answer;
  const rows = await database.all<UnsettledRow & { business_key: Uint8Array }>(
    `select business_key, ${UNSETTLED_COLUMNS} from (
       select k.business_key, t.id, t.producer_group, t.state, t.message_count, t.cancelled,
         t.details,
         row_number() over (partition by k.business_key order by t.id) as place
       from escrow_business_key k join escrow_transaction t on t.id = k.transaction_id
       where k.business_key in (${marks(businessKeys.length)}) and t.settled_at = ${NEVER}
         ${producerGroup === undefined ? '' : 'and t.producer_group = ?'}
     ) as unsettled where place <= ${UNSETTLED_SHOWN_MAX} order by id`,
    [
      ...businessKeys.map((key) => Buffer.from(key)),
      ...(producerGroup === undefined ? [] : [producerGroup]),
    ],
  );
  for (const { row, unsettled } of await withGroups(database, rows)) {
    answer.get(Buffer.from(row.business_key).toString())?.push(unsettled);
  }
  return answer;
}
