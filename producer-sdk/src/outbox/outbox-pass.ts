import { randomUUID } from 'node:crypto';
import type { Executor, LocalDatabase } from '@escrowmq/database';
import { meaningOf, repeatedSession } from '@escrowmq/database';
import { EscrowError, LIMITS } from '@escrowmq/protocol';
import { isForGood, isUnavailable, mayBeOfOne, sendBatch } from '../client/batch.js';
import { refusalOf, retryAfterMsOf } from '../client/batch-results.js';
import type { BrokerHttp } from '../client/broker-http.js';
import { idValue, storedText } from '../local/barrier-sql.js';
import type { Logger } from '../logger.js';
import { OUTBOX_STATEMENTS } from './outbox-sql.js';
import { markSent, missingOutbox, OUTBOX_LIMITS, park } from './outbox-table.js';

/**
 * One pass of a relay over one database: claim rows that are due, send them in one batch, mark what
 * the broker has taken. No database transaction is open while the broker is called.
 *
 * A claim is a lease: `due_at` moves ahead and the row gets the claimer's token, in one guarded
 * UPDATE, so that of several relays one has it. What a crash does at each step: before the send, and
 * after it, the row is due again when the lease is over, and sent once more under the same id, which
 * the broker answers like the first time. So a lease saves work, and safety does not rest on it.
 *
 * Marked as sent is only what the broker has acknowledged, and afterwards, never before.
 */
export interface PassDeps {
  database: LocalDatabase<unknown>;
  producerGroup: string;
  http: BrokerHttp;
  /** For one call of the broker, repeats included. */
  requestTimeoutMs: number;
  leaseMs: number;
  logger: Logger;
}

/** What became of the rows that a pass took. */
export interface PassCounts {
  /** Number of rows that the broker has acknowledged, and that are marked. */
  sent: number;
  /** Number of rows that the broker has refused for good. */
  parked: number;
  /** Number of rows that are left for a later pass. */
  putOff: number;
}

export interface PassResult extends PassCounts {
  /** Nothing was due, for this relay or for another one. */
  isIdle: boolean;
  /** Why rows were put off. */
  failure?: unknown;
}

interface Row {
  id: string;
  operation: string;
}

/** What the broker said to one row; a row that is in none of these is put off. */
interface Verdicts {
  sent: string[];
  refused: { id: string; error: EscrowError }[];
  failure?: unknown;
  /** What the broker asked for, in milliseconds. */
  retryAfterMs: number;
}

/** What was put off waits as long as the slowest back-off of a client. */
const PUT_OFF_MS_MIN = 1_000;
/** Enough to find every culprit where a batch is refused whole; the rest waits for the next pass. */
const PASS_REQUESTS_MAX = 2 * LIMITS.operationsPerBatchMax;
/** Envelope of a batch, and a comma for each operation. */
const ENVELOPE_BYTES = 20 + LIMITS.operationsPerBatchMax;
/** Enough to see what was wrong; a broker names every wrong field. */
const CAUSE_CHARS_MAX = 2_000;

export async function relayOnce(deps: PassDeps): Promise<PassResult> {
  const { found, token, rows } = await claim(deps);
  const verdicts: Verdicts = { sent: [], refused: [], retryAfterMs: 0 };
  const readable = rows.filter((row) => isReadable(row, verdicts));
  if (readable.length > 0) {
    try {
      await sendInto(verdicts, deps, { rows: readable, requests: { left: PASS_REQUESTS_MAX } });
    } catch (error) {
      verdicts.failure = error;
    }
  }
  await markSent(deps.database, verdicts.sent);
  for (const { id, error } of verdicts.refused) await parkRefused(deps, id, error);
  const putOff = await putOffRest(deps, { token, rows, verdicts });
  return {
    isIdle: found === 0,
    sent: verdicts.sent.length,
    parked: verdicts.refused.length,
    putOff,
    // What one address could not take, another one may have taken.
    ...(verdicts.failure === undefined || putOff === 0 ? {} : { failure: verdicts.failure }),
  };
}

interface Claimed {
  /** Rows that were due, also those that another relay was faster with. */
  found: number;
  token: string;
  rows: Row[];
}

async function claim({ database, producerGroup, leaseMs }: PassDeps): Promise<Claimed> {
  const { dialect } = database;
  const statements = OUTBOX_STATEMENTS[dialect];
  const token = randomUUID().replaceAll('-', '');
  const inOne = async (executor: Executor): Promise<Claimed> => {
    const due = await executor.select(statements.selectDue, { id: 'text', bytes: 'number' }, [
      producerGroup,
      LIMITS.operationsPerBatchMax,
    ]);
    const ids = thatFit(due);
    if (ids.length === 0) return { found: 0, token, rows: [] };
    await executor.execute(statements.claim(ids.length), [token, leaseMs, ...ids]);
    const columns = { id: 'text', operation: 'text' } as const;
    const rows = await executor.select(statements.readClaimed(ids.length), columns, [
      token,
      ...ids,
    ]);
    return {
      found: due.length,
      token,
      rows: rows.map(({ id, operation }) => ({
        id: dashed(id.toLowerCase()),
        operation: storedText(dialect, operation),
      })),
    };
  };
  try {
    // The session has ended, and what it wrote is durable, before anything is sent.
    return await repeatedSession(database, inOne, OUTBOX_LIMITS);
  } catch (error) {
    throw meaningOf(error) === 'no such table' ? missingOutbox(error) : error;
  }
}

/** As many of the rows, in order, as one batch takes. */
function thatFit(due: { id: string; bytes: number }[]): string[] {
  let bytes = ENVELOPE_BYTES;
  const ids: string[] = [];
  for (const row of due) {
    bytes += row.bytes;
    if (ids.length > 0 && bytes > LIMITS.batchBytesMax) break;
    ids.push(row.id);
  }
  return ids;
}

const dashed = (id: string) =>
  [id.slice(0, 8), id.slice(8, 12), id.slice(12, 16), id.slice(16, 20), id.slice(20)].join('-');

/** One row that somebody wrote by hand must not make a broker refuse the whole batch. */
function isReadable({ id, operation }: Row, verdicts: Verdicts): boolean {
  const value = parsed(operation);
  if (value?.op === 'send' && value.id === id) return true;
  const error = new EscrowError(
    'INVALID_REQUEST',
    `the operation in the outbox row of ${id} is not a send of ${id}`,
  );
  verdicts.refused.push({ id, error });
  return false;
}

function parsed(json: string): { op?: unknown; id?: unknown } | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    // Not JSON: no operation, as the caller says.
    return undefined;
  }
}

/**
 * Sends rows as one batch and notes what the broker said to each. No row harms another: a body that
 * is refused whole is sent in halves, which find out for the sake of which row.
 *
 * @param requests that may still be spent on that
 * @throws when the broker did not answer, or refuses this relay
 */
async function sendInto(
  verdicts: Verdicts,
  deps: PassDeps,
  { rows, requests }: { rows: Row[]; requests: { left: number } },
): Promise<void> {
  try {
    const again = await sendRows(verdicts, deps, rows);
    requests.left -= 1;
    // That address can't serve, and another one may.
    if (again.length === 0 || requests.left <= 0 || !deps.http.mayAskElsewhere()) return;
    await sendInto(verdicts, deps, { rows: again, requests });
  } catch (error) {
    if (!mayBeOfOne(error)) throw error;
    requests.left -= 1;
    const [first] = rows;
    if (rows.length === 1 && first !== undefined && isForGood(error)) {
      verdicts.refused.push({ id: first.id, error });
      return;
    }
    if (rows.length === 1 || requests.left <= 0) {
      verdicts.failure = error;
      return;
    }
    const middle = Math.ceil(rows.length / 2);
    await sendInto(verdicts, deps, { rows: rows.slice(0, middle), requests });
    await sendInto(verdicts, deps, { rows: rows.slice(middle), requests });
  }
}

/** @returns the rows that another address may take */
async function sendRows(
  verdicts: Verdicts,
  { http, requestTimeoutMs }: PassDeps,
  rows: Row[],
): Promise<Row[]> {
  const operations = rows.map(({ id, operation }) => ({ id, json: operation }));
  const results = await sendBatch(http, operations, requestTimeoutMs);
  return rows.filter(({ id }, index) => {
    const result = results[index];
    if (result === undefined) return false;
    if (result.answer !== undefined) {
      verdicts.sent.push(id);
      return false;
    }
    const error = refusalOf(id, result);
    if (isForGood(error)) {
      verdicts.refused.push({ id, error });
      return false;
    }
    verdicts.failure = error;
    verdicts.retryAfterMs = Math.max(verdicts.retryAfterMs, retryAfterMsOf(error));
    return isUnavailable(result);
  });
}

async function parkRefused(
  { database, logger }: PassDeps,
  id: string,
  error: EscrowError,
): Promise<void> {
  await park(database, id, `${error.code}: ${error.message}`.slice(0, CAUSE_CHARS_MAX));
  logger.error(
    { transactionId: id, error },
    'the broker refused a committed message of the outbox for good: it is parked; put right what is wrong and call retryParked()',
  );
}

/** Ends the lease of what nobody said anything about. */
async function putOffRest(
  { database }: PassDeps,
  { token, rows, verdicts }: { token: string; rows: Row[]; verdicts: Verdicts },
): Promise<number> {
  const settled = new Set([...verdicts.sent, ...verdicts.refused.map(({ id }) => id)]);
  const ids = rows.map(({ id }) => id).filter((id) => !settled.has(id));
  if (ids.length === 0) return 0;
  const { putOff } = OUTBOX_STATEMENTS[database.dialect];
  const pauseMs = Math.ceil(Math.max(PUT_OFF_MS_MIN, verdicts.retryAfterMs));
  await repeatedSession(
    database,
    (executor) => executor.execute(putOff(ids.length), [pauseMs, token, ...ids.map(idValue)]),
    OUTBOX_LIMITS,
  );
  return ids.length;
}
