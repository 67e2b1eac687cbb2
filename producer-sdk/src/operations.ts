import {
  BatchAnswer,
  type BatchResult,
  createCoalescer,
  EscrowError,
  fromProblem,
  LIMITS,
  type TransactionAnswer,
} from '@escrowmq/protocol';
import type { BrokerHttp } from './broker-http.js';
import { backOffMs, Deadline, within } from './deadline.js';
import type { Operation } from './operation-json.js';
import type { ProducerLimits } from './options.js';

/**
 * Prepare, send, commit and rollback, many at a time: concurrent calls become one
 * `POST /v1/batch`. A batch whose answer got lost is repeated whole, which is safe because every
 * operation is idempotent by its id; an operation that the broker put off (a retryable problem of
 * its own) goes into a later batch. Two operations on one id never share a batch and keep their
 * order.
 */
export interface Operations {
  /** @throws {EscrowError} the broker's refusal, BROKER_UNREACHABLE or BROKER_BUSY */
  run(operation: Operation, timeoutMs: number): Promise<TransactionAnswer>;
}

type Limits = Pick<ProducerLimits, 'operationsWaitingMax'>;

interface Item extends Operation {
  deadline: Deadline;
  /** Its caller has been told BROKER_UNREACHABLE: it must not be sent any more. */
  isGivenUp: boolean;
}

/** Its caller has been told BROKER_UNREACHABLE already: sending it would only be work. */
type Result = BatchResult | 'expired';

/** What stands around the operations in a body: the envelope, and a comma for each. */
const ENVELOPE_BYTES = 20 + LIMITS.operationsPerBatchMax;

export function createOperations(http: BrokerHttp, limits: Limits): Operations {
  const { operationsWaitingMax } = limits;
  const coalescer = createCoalescer<Item, Result>({
    flush: (items) => flush(http, items),
    batchMax: LIMITS.operationsPerBatchMax,
    batchBytesMax: LIMITS.batchBytesMax - ENVELOPE_BYTES,
    sizeOf: (item) => item.bytes,
    keyOf: (item) => item.id,
    waitingMax: operationsWaitingMax,
    refuse: () =>
      new EscrowError(
        'BROKER_BUSY',
        `${operationsWaitingMax} operations wait for the broker (operationsWaitingMax); send fewer at a time`,
      ),
  });

  return {
    async run(operation, timeoutMs) {
      const deadline = new Deadline(timeoutMs);
      for (let failures = 1; ; failures += 1) {
        const item: Item = { ...operation, deadline, isGivenUp: false };
        const result = await within(coalescer.call(item), deadline.leftMs, {
          error: () => {
            item.isGivenUp = true;
            return http.unreachable(timeoutMs);
          },
        });
        if (result === 'expired') throw http.unreachable(timeoutMs);
        if (result.answer !== undefined) return result.answer;
        const refused = refusalOf(operation.id, result);
        if (!refused.retryable) throw refused;
        if (!(await deadline.pause(backOffMs(failures)))) {
          throw new EscrowError(
            'BROKER_UNREACHABLE',
            `the broker put ${operation.op} of ${operation.id} off for ${timeoutMs} ms: ${refused.message}`,
            { cause: refused },
          );
        }
      }
    },
  };
}

async function flush(http: BrokerHttp, items: Item[]): Promise<Result[]> {
  // A timer may fire a fraction before its deadline has passed: what counts is what was told.
  const live = items.filter((item) => !item.isGivenUp && !item.deadline.hasPassed);
  if (live.length === 0) return items.map(() => 'expired');
  const body = `{"operations":[${live.map((item) => item.json).join(',')}]}`;
  const read = (value: unknown) => {
    const answer = BatchAnswer.parse(value);
    if (answer.results.length === live.length) return answer;
    throw new Error(`${answer.results.length} results for ${live.length} operations`);
  };
  const timeoutMs = Math.max(...live.map((item) => item.deadline.leftMs));
  const { results } = await http.call({ method: 'POST', path: '/v1/batch', body, read }, timeoutMs);
  const byItem = new Map(live.map((item, index) => [item, results[index]]));
  return items.map((item) => byItem.get(item) ?? 'expired');
}

function refusalOf(id: string, result: BatchResult): EscrowError {
  if (result.problem !== undefined) return fromProblem(result.problem);
  return new EscrowError(
    'INTERNAL_ERROR',
    `the broker answered ${result.status} for ${id} with neither an answer nor a problem`,
  );
}
