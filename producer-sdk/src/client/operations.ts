import { Deadline } from '@escrowmq/database';
import {
  type BatchResult,
  createCoalescer,
  EscrowError,
  LIMITS,
  type TransactionAnswer,
  toProblem,
} from '@escrowmq/protocol';
import { pauseBeforeRepeatMs } from '../back-off.js';
import { type AdmissionLimits, createAdmission } from './admission.js';
import { APART_REQUESTS_MAX, isUnavailable, mayBeOfOne, sendBatch } from './batch.js';
import { refusalOf, retryAfterMsOf } from './batch-results.js';
import type { BrokerHttp } from './broker-http.js';
import { createExpiries } from './expiries.js';
import type { Operation } from './operation-json.js';

/**
 * Prepare, send, commit and rollback, many at a time: concurrent calls become one
 * `POST /v1/batch`. A batch whose answer got lost is repeated whole, which is safe because every
 * operation is idempotent by its id; an operation that the broker put off (a retryable problem of
 * its own) goes into a later batch: at once where another address may serve it, and else not before
 * the broker wants it. Two operations on one id never share a batch and keep their order, but one
 * that was put off lets others pass.
 *
 * No operation harms its neighbours: a batch that is refused whole is sent in halves, and what was
 * not answered together with others is sent alone from then on.
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
  /** Its batch, and the part of it that it stood in, was refused whole. */
  isAlone: boolean;
  resolve(answer: TransactionAnswer): void;
  reject(error: unknown): void;
}

/**
 * `expired`: its caller has been told BROKER_UNREACHABLE already, and sending it would only be work.
 * `alone`: it is to be sent by itself.
 */
type Result = BatchResult | 'expired' | 'alone';

/** What stands around the operations in a body: the envelope, and a comma for each. */
const ENVELOPE_BYTES = 20 + LIMITS.operationsPerBatchMax;

export function createOperations(http: BrokerHttp, limits: AdmissionLimits): Operations {
  const admission = createAdmission(limits);
  const coalescer = createCoalescer<Call, Result | Promise<Result>>({
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
        const result = await (call.isAlone ? sendAlone(http, call) : coalescer.call(call));
        if (result === 'expired') throw http.unreachable(deadline.limitMs);
        if (result === 'alone') {
          call.isAlone = true;
          continue;
        }
        if (result.answer !== undefined) return call.resolve(result.answer);
        const refused = refusalOf(operation.id, result);
        if (!refused.retryable) throw refused;
        const isElsewhere = isUnavailable(result) && http.mayAskElsewhere();
        const pauseMs = isElsewhere ? 0 : pauseBeforeRepeatMs(failures, retryAfterMsOf(refused));
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
        void settle({ operation, deadline, isGivenUp: false, isAlone: false, resolve, reject });
      });
    },
  };
}

async function flush(http: BrokerHttp, calls: Call[]): Promise<(Result | Promise<Result>)[]> {
  // A timer may fire a fraction before its deadline has passed: what counts is what was told.
  const live = calls.filter((call) => !call.isGivenUp && !call.deadline.hasPassed);
  if (live.length === 0) return calls.map(() => 'expired');
  const results = await send(http, live).catch((error: unknown) => {
    if (live.length === 1 || !mayBeOfOne(error)) throw error;
    // Not waited for here: the next batch must not wait for the culprits of this one.
    return sendApart(http, live, error);
  });
  let answered = 0;
  return calls.map((call) =>
    call === live[answered] ? (results[answered++] as Result | Promise<Result>) : 'expired',
  );
}

function send(http: BrokerHttp, calls: Call[]): Promise<BatchResult[]> {
  const timeoutMs = Math.max(...calls.map(({ deadline }) => deadline.leftMs));
  const operations = calls.map(({ operation }) => operation);
  return sendBatch(http, operations, timeoutMs);
}

async function sendAlone(http: BrokerHttp, call: Call): Promise<Result> {
  const [result] = await send(http, [call]);
  return result ?? 'expired';
}

/** A call whose result is still to come. */
interface Part {
  call: Call;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/** One result for each call of a batch that was refused whole, as halves of it are answered. */
function sendApart(http: BrokerHttp, calls: Call[], refused: EscrowError): Promise<Result>[] {
  const parts: Part[] = [];
  const results = calls.map(
    (call) =>
      new Promise<Result>((resolve, reject) => {
        parts.push({ call, resolve, reject });
      }),
  );
  void sendHalves(http, parts, { left: APART_REQUESTS_MAX, refused });
  return results;
}

/** Never rejects: each part has its own result. */
async function sendHalves(
  http: BrokerHttp,
  parts: Part[],
  requests: { left: number; refused: EscrowError },
): Promise<void> {
  const middle = Math.ceil(parts.length / 2);
  for (const half of [parts.slice(0, middle), parts.slice(middle)]) {
    if (half.length === 1 || requests.left === 0) {
      // Where the broker fails over everything, what is left is put off, not sent one by one.
      const { retryable, status } = requests.refused;
      const isPutOff = half.length > 1 && retryable;
      const result = isPutOff ? { status, problem: toProblem(requests.refused) } : 'alone';
      for (const part of half) part.resolve(result);
      continue;
    }
    requests.left -= 1;
    try {
      const results = await send(
        http,
        half.map(({ call }) => call),
      );
      half.forEach((part, index) => {
        part.resolve(results[index] ?? 'alone');
      });
    } catch (error) {
      if (mayBeOfOne(error)) {
        requests.refused = error;
        await sendHalves(http, half, requests);
      } else for (const part of half) part.reject(error);
    }
  }
}

function putOff({ operation, deadline }: Call, refused: EscrowError): EscrowError {
  return new EscrowError(
    'BROKER_UNREACHABLE',
    `the broker put ${operation.op} of ${operation.id} off past its limit of ${deadline.limitMs} ms: ${refused.message}`,
    { cause: refused },
  );
}
