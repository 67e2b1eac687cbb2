import type {
  GroupStanding,
  Message,
  SearchAnswer,
  SearchQuery,
  TransactionSummary,
  TransactionView,
} from '@escrowmq/protocol';
import { messageIdOf, STATES, Topic } from '@escrowmq/protocol';
import { closedStandings, saidBefore } from '../domain/closing.js';
import { dueAtOf, isDelayed } from '../domain/delivery-time.js';
import { type KeptReceipt, standingsOf } from '../domain/group-standing.js';
import { anyOrdered } from '../domain/ordering.js';
import { bodyOf, contentTypeOf } from '../domain/outgoing.js';
import type { StoreCounts } from '../domain/ports.js';
import { hasMessage } from '../domain/transaction.js';
import { compensationsOf, countOwed } from './compensation-operations.js';
import { historyOf, receiptsOf } from './history.js';
import { linesShown } from './ordering-view.js';
import {
  CLOSED_COLUMNS,
  type ClosedColumns,
  closedOf,
  decisionOf,
  expectationsIn,
  parseDetails,
  STATE_COLUMNS,
  type StateRow,
} from './rows.js';
import { type Database, idBytes, idText, NEVER, type SqlValue } from './sql.js';

const SUMMARY_COLUMNS = `${STATE_COLUMNS}, prepared_at, settled_at, ${CLOSED_COLUMNS}`;
type SummaryRow = StateRow & ClosedColumns & { prepared_at: number; settled_at: number };

const WITH_CLOSED = 'left join escrow_unsettled on transaction_id = id';

function summaryOf(row: SummaryRow): TransactionSummary {
  const decision = decisionOf(row);
  const closed = closedOf(row);
  return {
    id: idText(row.id),
    producerGroup: row.producer_group,
    state: row.state,
    ...(row.parked_reason === 'none' ? {} : { parkedReason: row.parked_reason }),
    preparedAt: row.prepared_at,
    ...(row.due_at === NEVER ? {} : { dueAt: row.due_at }),
    settled: row.settled_at !== NEVER,
    ...(closed === undefined ? {} : { closed }),
    ...(decision === undefined ? {} : { decision }),
  };
}

type ViewRow = SummaryRow & {
  cancelled: number;
  unrouted: number;
  last_failure: string | null;
  details: string | null;
  messages: string;
};

function messageState(row: ViewRow, number: number): TransactionView['messages'][number]['state'] {
  if (row.state === 'rolledBack') return 'rolledBack';
  if (row.decision === 'none') return 'half';
  if (hasMessage(row.cancelled, number)) return 'cancelled';
  if (hasMessage(row.unrouted, number)) return 'unrouted';
  return hasMessage(row.pending, number) ? 'pending' : 'forwarded';
}

function groupsShown(row: ViewRow, receipts: readonly KeptReceipt[]): GroupStanding[] {
  const expectations = expectationsIn(parseDetails(row.details), row.message_count);
  const closed = closedOf(row);
  if (closed === undefined) return standingsOf(expectations, row.cancelled, receipts);
  const inTime = saidBefore(closed, receipts);
  return closedStandings(closed, standingsOf(expectations, row.cancelled, inTime));
}

/** Of a delayed message that is still to be sent; before the commit nobody knows it. */
function dueAtShown(row: ViewRow, message: Message, number: number): { dueAt?: number } {
  const isToBeSent = row.decision === 'commit' && hasMessage(row.pending, number);
  return isToBeSent && isDelayed(message) ? { dueAt: dueAtOf(message, row.decided_at) } : {};
}

export async function view(database: Database, id: string): Promise<TransactionView | undefined> {
  const [row] = await database.all<ViewRow>(
    `select ${SUMMARY_COLUMNS}, cancelled, unrouted, last_failure, details, messages
     from escrow_transaction ${WITH_CLOSED} where id = ?`,
    [idBytes(id)],
  );
  if (row === undefined) return undefined;
  const { businessKeys, expects, checkContext } = parseDetails(row.details);
  const receipts = (await receiptsOf(database, [id], database.dialect)).get(id) ?? [];
  const messages = JSON.parse(row.messages) as Message[];
  const lines = anyOrdered(messages) ? await linesShown(database, database.dialect, id) : new Map();
  return {
    ...summaryOf(row),
    businessKeys: businessKeys ?? [],
    expects: expects ?? [],
    ...(checkContext === undefined ? {} : { checkContext }),
    checks: { unknown: row.checks, unanswered: row.unanswered },
    forwarding: {
      failedAttempts: row.attempts,
      ...(row.last_failure === null ? {} : { lastFailure: row.last_failure }),
    },
    messages: messages.map((message, number) => ({
      messageId: messageIdOf(id, number),
      topic: message.topic,
      routingKey: message.routingKey,
      ...(message.dataAtCommit === true
        ? { contentType: '', bytes: 0, dataAtCommit: true }
        : { contentType: contentTypeOf(message), bytes: bodyOf(message).length }),
      state: messageState(row, number),
      ...(message.orderingKey === undefined
        ? {}
        : { ordering: { key: message.orderingKey, ...lines.get(number) } }),
      ...dueAtShown(row, message, number),
      ...(message.expects === undefined ? {} : { expects: message.expects }),
    })),
    groups: groupsShown(row, receipts),
    receipts,
    compensations: await compensationsOf(database, id),
    history: await historyOf(database, id),
  };
}

/**
 * The index by which the ids of a page are found: that of a state which few rows have, otherwise
 * that of the ids, from the newest on. Of a rare state, the way from the newest row may lead through
 * millions (2.4 s among 600,000 rows of MariaDB, whose planner prefers it); a common one is met soon.
 */
async function indexFor(
  { all, dialect: { byId, byState, rowsSortedMax } }: Database,
  { state, businessKey }: SearchQuery,
): Promise<string> {
  // A business key names the few ids that its transactions have.
  const index = state === undefined || businessKey !== undefined ? '' : byState(state);
  if (index === '') return byId;
  const [row] = await all<{ value: number }>(
    `select count(*) as value from (
       select 1 from escrow_transaction ${index} where state = '${state}' limit ${rowsSortedMax}
     ) as some`,
  );
  return row !== undefined && row.value < rowsSortedMax ? index : byId;
}

/** Newest first by id; a page ends where its cursor begins the next. */
export async function search(database: Database, query: SearchQuery): Promise<SearchAnswer> {
  const conditions: string[] = [];
  const values: SqlValue[] = [];
  const where = (condition: string, value: SqlValue) => {
    conditions.push(condition);
    values.push(value);
  };
  // Not bound: SQLite would not see that it is the state of the index. It is one of five words.
  if (query.state !== undefined) conditions.push(`state = '${query.state}'`);
  if (query.producerGroup !== undefined) where('producer_group = ?', query.producerGroup);
  if (query.topic !== undefined) {
    // What can't be a topic is the name of none: with a comma it would match two neighbours, and
    // the column holds ASCII only.
    if (!Topic.safeParse(query.topic).success) return { transactions: [] };
    // Not LIKE, which takes letters of either case for the same on SQLite.
    where('instr(topics, ?) > 0', `,${query.topic},`);
  }
  if (query.businessKey !== undefined) {
    where(
      'id in (select transaction_id from escrow_business_key where business_key = ?)',
      Buffer.from(query.businessKey),
    );
  }
  if (query.cursor !== undefined) where('id < ?', idBytes(query.cursor));
  const { byId } = database.dialect;
  const index = await indexFor(database, query);
  // First the ids of the page, then its rows: on MySQL the index of a state holds the ids as well,
  // so that of all the rows which are sorted only those of the page are read.
  const rows = await database.all<SummaryRow>(
    `select ${SUMMARY_COLUMNS} from (
       select id as found from escrow_transaction ${index}
       ${conditions.length === 0 ? '' : `where ${conditions.join(' and ')}`}
       order by id desc limit ?
     ) as page join escrow_transaction ${byId} on id = found ${WITH_CLOSED}
     order by id desc`,
    [...values, query.limit + 1],
  );
  const page = rows.slice(0, query.limit).map(summaryOf);
  const last = page.at(-1);
  const more = rows.length > query.limit && last !== undefined;
  return { transactions: page, ...(more ? { cursor: last.id } : {}) };
}

interface CountRow {
  name: string;
  value: number;
  prepared_at: number | null;
}

export async function counts(database: Database): Promise<StoreCounts> {
  const rows = await database.all<CountRow>(database.dialect.countsByState);
  const count = (name: string) => rows.find((row) => row.name === name)?.value ?? 0;
  const byState = Object.fromEntries(
    STATES.map((state) => [state, count(state)]),
  ) as StoreCounts['byState'];
  const openSince = rows.flatMap(({ prepared_at }) => prepared_at ?? []);
  return {
    byState,
    purged: { forwarded: count('purged.forwarded'), rolledBack: count('purged.rolledBack') },
    ...(openSince.length === 0 ? {} : { oldestOpenAt: Math.min(...openSince) }),
    compensationsOwed: await countOwed(database),
  };
}
