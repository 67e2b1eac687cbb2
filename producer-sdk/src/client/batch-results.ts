import { BatchResult, DECISIONS, EscrowError, toProblem } from '@escrowmq/protocol';
import { refusalFrom } from './refusals.js';

/**
 * What a broker answered to a batch: one result for each id, in order. A result of the usual kind
 * is recognised without the schema; any other one the schema takes. One that can not be read is the
 * failure of its own operation, which is sent again, and of no other one.
 *
 * @throws when it is not as many results as there were operations
 */
export function readResults(value: unknown, ids: string[]): BatchResult[] {
  const results: unknown = isObject(value) ? value.results : undefined;
  if (!Array.isArray(results) || results.length !== ids.length) {
    throw new Error(`not ${ids.length} results: ${JSON.stringify(value)?.slice(0, EXCERPT_CHARS)}`);
  }
  return ids.map((id, index) => {
    const result: unknown = results[index];
    return isUsual(id, result) ? result : readUnusual(id, result);
  });
}

/** Enough of an unexpected answer to see what sent it. */
const EXCERPT_CHARS = 200;

const KNOWN_DECISIONS: ReadonlySet<unknown> = new Set(DECISIONS);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

function isUsual(id: string, result: unknown): result is BatchResult {
  if (!isObject(result) || !isObject(result.answer)) return false;
  const { answer } = result;
  // A newer broker may have a state that is unknown here; the decision beside it is not.
  if (answer.id !== id || typeof answer.state !== 'string') return false;
  const { decision } = answer;
  return decision === undefined || (isObject(decision) && KNOWN_DECISIONS.has(decision.decision));
}

function readUnusual(id: string, value: unknown): BatchResult {
  const read = BatchResult.safeParse(value);
  if (!read.success) return unreadable(id, value);
  const { answer, problem } = read.data;
  const isOfOther = answer !== undefined && answer.id !== id;
  const isNothing = answer === undefined && problem === undefined;
  return isOfOther || isNothing ? unreadable(id, value) : read.data;
}

/** Nothing is known of that operation, and the same one sent again is harmless. */
function unreadable(id: string, value: unknown): BatchResult {
  const error = new EscrowError(
    'INTERNAL_ERROR',
    `not a result for ${id}: ${JSON.stringify(value)?.slice(0, EXCERPT_CHARS)}`,
  );
  return { status: error.status, problem: toProblem(error) };
}

/** The problem in a result, or what is wrong with a result that has none. */
export function refusalOf(id: string, result: BatchResult): EscrowError {
  if (result.problem !== undefined) return refusalFrom(result.problem);
  return new EscrowError(
    'INTERNAL_ERROR',
    `the broker answered ${result.status} for ${id} with neither an answer nor a problem`,
  );
}

/** How long the broker asked to be left alone, in milliseconds; 0 when it did not say. */
export function retryAfterMsOf(refused: EscrowError): number {
  const { retryAfterSeconds } = refused.details;
  return typeof retryAfterSeconds === 'number' ? retryAfterSeconds * 1000 : 0;
}
