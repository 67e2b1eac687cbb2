import { BatchResult, Decision, EscrowError, fromProblem, STATES } from '@escrowmq/protocol';

/**
 * What a broker answered to a batch: one result for each id, in order. A result of the usual kind
 * is recognised without the schema; any other one the schema takes or refuses.
 *
 * @throws when it is not what a broker answers, to these operations
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

const STATE_NAMES: ReadonlySet<unknown> = new Set(STATES);
const DECISIONS: ReadonlySet<unknown> = new Set(Decision.options);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

function isUsual(id: string, result: unknown): result is BatchResult {
  if (!isObject(result) || !isObject(result.answer)) return false;
  const { answer } = result;
  if (answer.id !== id || !STATE_NAMES.has(answer.state)) return false;
  const { decision } = answer;
  return decision === undefined || (isObject(decision) && DECISIONS.has(decision.decision));
}

function readUnusual(id: string, value: unknown): BatchResult {
  const result = BatchResult.parse(value);
  if (result.answer === undefined || result.answer.id === id) return result;
  throw new Error(`an answer to ${result.answer.id} in the place of the one to ${id}`);
}

/** The problem in a result, or what is wrong with a result that has none. */
export function refusalOf(id: string, result: BatchResult): EscrowError {
  if (result.problem !== undefined) return fromProblem(result.problem);
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
