import { Deadline } from '@escrowmq/database';
import {
  type BatchResult,
  createCoalescer,
  EscrowError,
  LIMITS,
  type TransactionAnswer,
} from '@escrowmq/protocol';
import { pauseBeforeRepeatMs } from '../back-off.js';
import { type AdmissionLimits, createAdmission } from './admission.js';
import { readResults, refusalOf, retryAfterMsOf } from './batch-results.js';
import type { BrokerHttp } from './broker-http.js';
import { createExpiries } from './expiries.js';
import type { Operation } from './operation-json.js';

/**
 * Prepare, send, commit and rollback, many at a time: concurrent calls become one
 * `POST /v1/batch`. A batch whose answer got lost is repeated whole, which is safe because every
 * operation is idempotent by its id; an operation that the broker put off (a retryable problem of
 * its own) goes into a later batch, not before the broker wants it. Two operations on one id never
 * share a batch and keep their order, but one that was put off lets others pass.
 */
export interface Operations {
  /**
   * @throws {EscrowError} the broker's refusal, BROKER_UNREACHABLE, or BROKER_BUSY: too much waits
   *   here, and nothing of this operation was sent
   */
  run(operation: Operation, timeoutMs: number): Promise<TransactionAnswer>;
}

interface Call {
  operation: Operation;
  deadline: Deadline;
  /** Its caller has been told BROKER_UNREACHABLE: it must not be sent any more. */
  isGivenUp: boolean;
  resolve(answer: TransactionAnswer): void;
  reject(error: unknown): void;
}

/** Its caller has been told BROKER_UNREACHABLE already: sending it would only be work. */
type Result = BatchResult | 'expired';

/** What stands around the operations in a body: the envelope, and a comma for each. */
const ENVELOPE_BYTES = 20 + LIMITS.operationsPerBatchMax;

export function createOperations(http: BrokerHttp, limits: AdmissionLimits): Operations {
  const admission = createAdmission(limits);
  const coalescer = createCoalescer<Call, Result>({
    flush: (calls) => flush(http, calls),
    batchMax: LIMITS.operationsPerBatchMax,
    batchBytesMax: LIMITS.batchBytesMax - ENVELOPE_BYTES,
    sizeOf: (call) => call.operation.bytes,
    keyOf: (call) => call.operation.id,
    // Bounded by their admission, which also counts what is in flight or waits for its repeat.
    waitingMax: Number.POSITIVE_INFINITY,
    refuse: () => new Error('a queue without a limit refused an operation'),
  });
  const expiries = createExpiries<Call>((call) => {
    call.isGivenUp = true;
    call.reject(http.unreachable(call.deadline.limitMs));
  });

  /** Tries until the broker has said yes or no. */
  async function settle(call: Call): Promise<void> {
    const { operation, deadline } = call;
    expiries.add(call);
    try {
      for (let failures = 1; ; failures += 1) {
        const result = await coalescer.call(call);
        if (result === 'expired') throw http.unreachable(deadline.limitMs);
        if (result.answer !== undefined) return call.resolve(result.answer);
        const refused = refusalOf(operation.id, result);
        if (!refused.retryable) throw refused;
        const pauseMs = pauseBeforeRepeatMs(failures, retryAfterMsOf(refused));
        if (!(await deadline.pause(pauseMs))) throw putOff(call, refused);
      }
    } catch (error) {
      call.reject(error);
    } finally {
      expiries.delete(call);
      admission.leave(operation);
    }
  }

  return {
    run(operation, timeoutMs) {
      return new Promise<TransactionAnswer>((resolve, reject) => {
        admission.enter(operation);
        const deadline = new Deadline(timeoutMs);
        void settle({ operation, deadline, isGivenUp: false, resolve, reject });
      });
    },
  };
}

async function flush(http: BrokerHttp, calls: Call[]): Promise<Result[]> {
  // A timer may fire a fraction before its deadline has passed: what counts is what was told.
  const live = calls.filter((call) => !call.isGivenUp && !call.deadline.hasPassed);
  if (live.length === 0) return calls.map(() => 'expired');
  const results = await send(http, live);
  let answered = 0;
  return calls.map((call) =>
    call === live[answered] ? (results[answered++] as BatchResult) : 'expired',
  );
}

async function send(http: BrokerHttp, calls: Call[]): Promise<BatchResult[]> {
  const ids = calls.map(({ operation }) => operation.id);
  const body = `{"operations":[${calls.map(({ operation }) => operation.json).join(',')}]}`;
  const read = (value: unknown) => readResults(value, ids);
  const timeoutMs = Math.max(...calls.map(({ deadline }) => deadline.leftMs));
  return http.call({ method: 'POST', path: '/v1/batch', body, read }, timeoutMs);
}

function putOff({ operation, deadline }: Call, refused: EscrowError): EscrowError {
  return new EscrowError(
    'BROKER_UNREACHABLE',
    `the broker put ${operation.op} of ${operation.id} off past its limit of ${deadline.limitMs} ms: ${refused.message}`,
    { cause: refused },
  );
}
