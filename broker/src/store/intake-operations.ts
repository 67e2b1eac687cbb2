import { EscrowError } from '@escrowmq/protocol';
import { expectationsOf, receiptsWanted } from '../domain/expectations.js';
import { anyOpen } from '../domain/open-messages.js';
import { anyOrdered, orderedOf } from '../domain/ordering.js';
import type { Found, Inserted } from '../domain/ports.js';
import { allMessages, type NewTransaction } from '../domain/transaction.js';
import { type Joining, joinLines, openKeys } from './ordering-operations.js';
import {
  detailsJson,
  foundRow,
  foundTombstone,
  STATE_COLUMNS,
  type StateRow,
  type TombstoneRow,
} from './rows.js';
import {
  type Database,
  type Dialect,
  DuplicateKey,
  idBytes,
  idText,
  NEVER,
  RowRefused,
  type RowsToInsert,
  type Sql,
} from './sql.js';

const TOMBSTONE_COLUMNS =
  'id, producer_group, content_hash, decision, decided_at, decided_by, decision_reason';

async function tombstonesOf(
  sql: Sql,
  ids: readonly string[],
  dialect: Dialect,
): Promise<TombstoneRow[]> {
  if (ids.length === 0) return [];
  const { list, values } = dialect.inIds(ids);
  return sql.all<TombstoneRow>(
    `select ${TOMBSTONE_COLUMNS} from escrow_tombstone where id ${list}`,
    values,
  );
}

/** Rows by id, and the tombstones of those that have no row any more. */
export async function find(
  database: Database,
  ids: readonly string[],
): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  if (ids.length === 0) return found;
  const { list, values } = database.dialect.inIds(ids);
  const rows = await database.all<StateRow>(
    `select ${STATE_COLUMNS} from escrow_transaction where id ${list}`,
    values,
  );
  for (const row of rows) found.set(idText(row.id), foundRow(row));
  const absent = ids.filter((id) => !found.has(id));
  for (const row of await tombstonesOf(database, absent, database.dialect)) {
    found.set(idText(row.id), foundTombstone(row));
  }
  return found;
}

// ---- insert

/**
 * What every new row says. The defaults of the other columns are those of a prepare: each column
 * that is left out saves the database half a microsecond a row.
 */
const PREPARE_COLUMNS = [
  'id',
  'producer_group',
  'content_hash',
  'message_count',
  'pending',
  'receipts_wanted',
  'bytes',
  'topics',
  'details',
  'messages',
  'prepared_at',
  'due_at',
] as const;

/** A send is decided when it is inserted. Written for all of a batch in which there is one. */
const SEND_COLUMNS = ['state', 'decision', 'decided_at'] as const;

function prepareValues(transaction: NewTransaction) {
  const { kind, messages } = transaction;
  return [
    idBytes(transaction.id),
    transaction.producerGroup,
    transaction.contentHash,
    messages.length,
    // None where the commit takes more than the decision: see verdict-operations.ts.
    kind.op === 'prepare' && (anyOpen(messages) || anyOrdered(messages))
      ? 0
      : allMessages(messages.length),
    receiptsWanted(expectationsOf(transaction)),
    transaction.bytes,
    `,${[...new Set(messages.map((message) => message.topic))].join(',')},`,
    detailsJson(transaction),
    transaction.messagesJson,
    transaction.preparedAt,
    kind.op === 'send' ? kind.leaseMs : kind.checkAfterMs,
  ];
}

const sendValues = ({ kind }: NewTransaction) =>
  kind.op === 'send' ? ['committed', 'commit', 'commit'] : ['prepared', 'none', 'none'];

function transactionRows(now: string, batch: readonly NewTransaction[]): RowsToInsert {
  const table = 'escrow_transaction';
  const onDuplicate = 'fail';
  const due = `${now} + ?`;
  const plain = PREPARE_COLUMNS.map((column) => (column === 'due_at' ? due : '?'));
  if (batch.every(({ kind }) => kind.op === 'prepare')) {
    const rows = batch.map(prepareValues);
    return { table, columns: PREPARE_COLUMNS, expressions: plain, rows, onDuplicate };
  }
  return {
    table,
    columns: [...PREPARE_COLUMNS, ...SEND_COLUMNS],
    expressions: [...plain, '?', '?', `case ? when 'commit' then ${now} else ${NEVER} end`],
    rows: batch.map((transaction) => [...prepareValues(transaction), ...sendValues(transaction)]),
    onDuplicate,
  };
}

/** A send is committed by its insert, which gives its ordered messages their sequences too. */
const joiningOf = (batch: readonly NewTransaction[]): Joining[] =>
  batch
    .filter(({ kind, messages }) => kind.op === 'send' && anyOrdered(messages))
    .map(({ id, messages }) => ({ id, ordered: orderedOf(messages) }));

/** Keys are locked before rows are written, as everywhere: see ordering-operations.ts. */
async function insertInOrder(
  sql: Sql,
  dialect: Dialect,
  { transactions, joining }: { transactions: RowsToInsert; joining: readonly Joining[] },
): Promise<void> {
  if (joining.length === 0) return sql.insertRows(transactions);
  const ordered = joining.flatMap((one) => one.ordered);
  const keys = await openKeys(sql, dialect, ordered);
  await sql.insertRows(transactions);
  await joinLines(sql, dialect, { keys, joining });
}

async function insertAll(database: Database, batch: readonly NewTransaction[]): Promise<void> {
  const transactions = transactionRows(database.dialect.now, batch);
  const keys = batch.flatMap(({ id, businessKeys }) =>
    businessKeys.map((key) => [Buffer.from(key), idBytes(id)]),
  );
  const old = batch.filter(({ mayBePurged }) => mayBePurged).map(({ id }) => id);
  const joining = joiningOf(batch);
  if (keys.length === 0 && old.length === 0 && joining.length === 0) {
    // One statement is its own transaction; most batches are like that and save two round trips.
    return database.insertRows(transactions);
  }
  return database.transaction(async (sql) => {
    await insertInOrder(sql, database.dialect, { transactions, joining });
    await sql.insertRows({
      table: 'escrow_business_key',
      columns: ['business_key', 'transaction_id'],
      rows: keys,
      onDuplicate: 'fail',
    });
    // After the insert, never before: a purge that ends in between would free the id. Now either
    // the row was there and the insert failed, or its tombstone shows.
    const [tombstone] = await tombstonesOf(sql, old, database.dialect);
    if (tombstone !== undefined) throw new DuplicateKey(`${idText(tombstone.id)} has a tombstone`);
  });
}

type Taken = { found: Found; hash: Uint8Array };

/** Which ids of the batch are taken, by what and with which content. */
async function taken(
  database: Database,
  batch: readonly NewTransaction[],
): Promise<Map<string, Taken>> {
  const { list, values } = database.dialect.inIds(batch.map(({ id }) => id));
  const rows = await database.all<StateRow & { content_hash: Uint8Array }>(
    `select ${STATE_COLUMNS}, content_hash from escrow_transaction where id ${list}`,
    values,
  );
  const known = new Map<string, Taken>(
    rows.map((row) => [idText(row.id), { found: foundRow(row), hash: row.content_hash }]),
  );
  const old = batch.filter(({ id, mayBePurged }) => mayBePurged && !known.has(id));
  const oldIds = old.map(({ id }) => id);
  const tombstones = await tombstonesOf(database, oldIds, database.dialect);
  for (const row of tombstones) {
    known.set(idText(row.id), { found: foundTombstone(row), hash: row.content_hash });
  }
  return known;
}

const compared = (transaction: NewTransaction, { found, hash }: Taken): Inserted =>
  transaction.contentHash.equals(hash) ? { kind: 'repeated', found } : { kind: 'different' };

/**
 * A multi-row INSERT with one duplicate fails whole. Then the taken ids are answered from what is
 * there, and the rest is inserted; it may fail again when somebody took another id meanwhile.
 */
async function insertPart(
  database: Database,
  part: readonly NewTransaction[],
  results: Map<string, Inserted>,
): Promise<void> {
  for (;;) {
    const rest = part.filter(({ id }) => !results.has(id));
    if (rest.length === 0) return;
    try {
      await insertAll(database, rest);
      for (const { id } of rest) results.set(id, { kind: 'created' });
    } catch (error) {
      if (!(error instanceof DuplicateKey)) throw error;
      const known = await taken(database, rest);
      if (known.size === 0) throw error;
      for (const transaction of rest) {
        const there = known.get(transaction.id);
        if (there !== undefined) results.set(transaction.id, compared(transaction, there));
      }
    }
  }
}

/**
 * One transaction that the database does not take makes its whole statement fail. It is found by
 * halves, so that it is refused alone: of 500, nine more statements.
 */
async function insertApart(
  database: Database,
  part: readonly NewTransaction[],
  results: Map<string, Inserted>,
): Promise<void> {
  try {
    await insertPart(database, part, results);
  } catch (error) {
    if (!(error instanceof RowRefused)) throw error;
    const [only] = part;
    if (part.length === 1 && only !== undefined) {
      results.set(only.id, { kind: 'refused', error: refusedAlone(only, error) });
      return;
    }
    const middle = Math.ceil(part.length / 2);
    await insertApart(database, part.slice(0, middle), results);
    await insertApart(database, part.slice(middle), results);
  }
}

function refusedAlone({ id, bytes }: NewTransaction, error: RowRefused): Error {
  // Our own limits should have kept such a value out: a mistake, which is to be written down.
  if (error.why === 'badValue') return error;
  return new EscrowError(
    'BODY_TOO_LARGE',
    `transaction ${id} has ${bytes} bytes of messages and does not fit into the store: ${error.message}`,
    { cause: error, details: { id } },
  );
}

/** In their order, as many as fit; one alone may be larger. */
function partsOf(batch: readonly NewTransaction[], bytesMax: number): NewTransaction[][] {
  const parts: NewTransaction[][] = [];
  let bytes = 0;
  for (const transaction of batch) {
    const part = parts.at(-1);
    bytes += transaction.bytes;
    if (part !== undefined && bytes <= bytesMax) part.push(transaction);
    else {
      parts.push([transaction]);
      bytes = transaction.bytes;
    }
  }
  return parts;
}

/**
 * What one transaction of the batch meets is its own: only where none of them came to an answer does
 * all of it reject.
 */
export async function insert(
  database: Database,
  batch: readonly NewTransaction[],
): Promise<Inserted[]> {
  const results = new Map<string, Inserted>();
  for (const part of partsOf(batch, database.insertBytesMax())) {
    try {
      await insertApart(database, part, results);
    } catch (cause) {
      if (results.size === 0) throw cause;
      const error = cause instanceof Error ? cause : new Error(String(cause), { cause });
      for (const { id } of part) if (!results.has(id)) results.set(id, { kind: 'refused', error });
    }
  }
  return batch.map(({ id }) => results.get(id) ?? { kind: 'created' });
}
