import { type BatchResult, type EscrowError, isEscrowError } from '@escrowmq/protocol';
import { readResults, refusalOf, retryAfterMsOf } from './batch-results.js';
import type { BrokerHttp } from './broker-http.js';

/** An operation as it stands in a batch. */
interface Written {
  id: string;
  json: string;
}

/**
 * Sends operations in one batch: a result for each, in order.
 *
 * @throws {EscrowError} BROKER_UNREACHABLE; what the whole of it was refused with
 */
export function sendBatch(
  http: BrokerHttp,
  operations: readonly Written[],
  timeoutMs: number,
): Promise<BatchResult[]> {
  const ids = operations.map(({ id }) => id);
  return http.call(
    {
      method: 'POST',
      path: '/v1/batch',
      body: `{"operations":[${operations.map(({ json }) => json).join(',')}]}`,
      read: (value) => readResults(value, ids),
      unserved: (results) => unserved(results, ids),
      isShared: operations.length > 1,
    },
    timeoutMs,
  );
}

/**
 * Why this broker serves nobody now, as when its store is away: it answered, and quickly, but all
 * that another attempt could change are 503s.
 */
function unserved(results: BatchResult[], ids: string[]): { retryAfterMs: number } | undefined {
  let retryAfterMs: number | undefined;
  for (const [index, result] of results.entries()) {
    if (result.problem?.retryable !== true) continue;
    if (!isUnavailable(result)) return undefined;
    const asked = retryAfterMsOf(refusalOf(ids[index] ?? '', result));
    retryAfterMs = Math.max(retryAfterMs ?? 0, asked);
  }
  return retryAfterMs === undefined ? undefined : { retryAfterMs };
}

/** Another address may have what this one lacks. */
export const isUnavailable = ({ status }: BatchResult): boolean => status === 503;

/** What is wrong with whoever sends, and not with what is sent. */
const SENDER_IS_WRONG = new Set<string>([
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'ROUTE_NOT_FOUND',
  'UNSUPPORTED_MEDIA_TYPE',
  'UNKNOWN_PRODUCER_GROUP',
]);

/** It will be refused again, until somebody changes it. */
export const isForGood = (error: EscrowError) =>
  !error.retryable && !SENDER_IS_WRONG.has(error.code);

/** A refusal of a whole batch that may be for the sake of one operation in it. */
export const mayBeOfOne = (error: unknown): error is EscrowError =>
  isEscrowError(error) && (isForGood(error) || error.code === 'INTERNAL_ERROR');

/**
 * Requests that look for the culprits in one batch. Halving finds one of 500 in 18, so that is enough
 * for three or four; and where a broker fails over everything, no storm comes of it.
 */
export const APART_REQUESTS_MAX = 64;
