import {
  BatchAnswer,
  BatchOperation,
  BatchRequest,
  type BatchResult,
  EscrowError,
  LIMITS,
  type OperationTrace,
  parse,
  parseOuter,
  plainOperation,
} from '@escrowmq/protocol';
import { z } from 'zod';
import type { TraceContext } from '../domain/transaction.js';

import { type Caller, groupOf, requireGroup } from './api-keys.js';
import type { Accepted, HttpDeps } from './deps.js';
import { problemOf, type ReportFailure, toEscrowError } from './problems.js';
import type { Route } from './route.js';
import { traceContextOf } from './trace-context.js';

type BatchDeps = Pick<HttpDeps, 'prepare' | 'send' | 'decide' | 'observer'>;

interface BatchLimits {
  /** The whole request. */
  batchBytesMax: number;
  /** One operation, which is thereby held to what it would be held to alone. */
  transactionBytesMax: number;
}

/** `BatchRequest` as the description shows it; there, operations are of no type yet. */
const DescribedBatch = z
  .strictObject({ operations: z.array(BatchOperation).min(1).max(LIMITS.operationsPerBatchMax) })
  .meta({ id: 'Batch' });

/** What all operations of one batch have in common. */
interface BatchContext {
  caller: Caller;
  trace: TraceContext;
  /** No limit when the whole batch is smaller than one operation may be. */
  operationBytesMax: number;
}

/**
 * `POST /v1/batch`: many operations in one request, each parsed, authorised and answered by
 * itself. Those on one id run in the order given, one after another; different ids run side by
 * side, so that they meet in the coalescer before the store. A batch is no transaction: some
 * operations may fail while others do not.
 */
export function batchRoutes(deps: BatchDeps, limits: BatchLimits): Route[] {
  return [
    {
      method: 'POST',
      url: '/v1/batch',
      access: ['producer'],
      bodyBytesMax: limits.batchBytesMax,
      operationId: 'batch',
      summary: 'Run many operations in one request',
      description:
        'Each operation succeeds or fails by itself, with the status that it would have had alone. Operations on one id run in the order given.',
      body: DescribedBatch,
      keepsTrace: true,
      answers: { 200: { description: 'One result per operation, in order', schema: BatchAnswer } },
      problems: [],
      async handle(call) {
        const { operations } = parseOuter(BatchRequest, call.body, 'the batch');
        // Absent for a body sent in chunks: NaN, and then every operation is measured.
        const bodyBytes = Number(call.headers['content-length']);
        const small = bodyBytes <= limits.transactionBytesMax;
        const context = {
          caller: call.caller,
          trace: traceContextOf(call.headers),
          operationBytesMax: small ? Number.POSITIVE_INFINITY : limits.transactionBytesMax,
        };
        return { body: { results: await runAll(operations, context, deps) } };
      },
    },
  ];
}

function runAll(
  operations: readonly unknown[],
  context: BatchContext,
  deps: BatchDeps,
): Promise<BatchResult[]> {
  const lastOnId = new Map<string, Promise<BatchResult>>();
  return Promise.all(
    operations.map((given, number) => {
      const operation = admit({ given, number }, context, deps);
      if (operation instanceof EscrowError) return failed(operation);
      const run = () => runOne(operation, context, deps);
      if (operation.id === undefined) return run();
      const before = lastOnId.get(operation.id);
      const result = before === undefined ? run() : before.then(run);
      lastOnId.set(operation.id, result);
      return result;
    }),
  );
}

const failed = (error: EscrowError): BatchResult => ({
  status: error.status,
  problem: problemOf(error),
});

/**
 * Parses, measures and authorises one operation. What is wrong with it is its result, and so is what
 * goes wrong over it: no operation harms its neighbours.
 */
function admit(
  { given, number }: { given: unknown; number: number },
  context: BatchContext,
  deps: BatchDeps,
): BatchOperation | EscrowError {
  try {
    const operation = plainOperation(given) ?? parse(BatchOperation, given, `operation ${number}`);
    // Measured only now: parsing has bounded how deep it nests, so that walking it is safe.
    requireBytes(given, number, context.operationBytesMax);
    if ('producerGroup' in operation) requireGroup(context.caller, operation.producerGroup);
    return operation;
  } catch (error) {
    return toEscrowError(error, `POST /v1/batch, operation ${number}`, reportTo(deps));
  }
}

const reportTo =
  ({ observer }: BatchDeps): ReportFailure =>
  (what, cause) =>
    observer.failed(what, cause);

function requireBytes(given: unknown, number: number, bytesMax: number): void {
  if (bytesMax === Number.POSITIVE_INFINITY) return;
  const bytes = Buffer.byteLength(JSON.stringify(given));
  if (bytes <= bytesMax) return;
  throw new EscrowError(
    'BODY_TOO_LARGE',
    `operation ${number} is ${bytes} bytes of JSON; one operation may be ${bytesMax} bytes`,
    { details: { bytesMax } },
  );
}

const traceOf = (own: OperationTrace | undefined, ofRequest: TraceContext): TraceContext =>
  own === undefined ? ofRequest : traceContextOf(own);

/** Never rejects: a failure is a result. */
async function runOne(
  operation: BatchOperation,
  { caller, trace }: BatchContext,
  deps: BatchDeps,
): Promise<BatchResult> {
  try {
    switch (operation.op) {
      // The operation is a request with two fields more; a copy without them cost 1 µs.
      case 'prepare':
        return resultOf(await deps.prepare(operation, traceOf(operation.trace, trace)));
      case 'send':
        return resultOf(await deps.send(operation, traceOf(operation.trace, trace)));
      case 'commit': {
        const { id, op, messageData } = operation;
        const verdict = { id, decision: op, producerGroup: groupOf(caller), messageData };
        return { status: 200, answer: await deps.decide(verdict) };
      }
      case 'rollback': {
        const { id, op } = operation;
        const verdict = { id, decision: op, producerGroup: groupOf(caller) };
        return { status: 200, answer: await deps.decide(verdict) };
      }
    }
  } catch (error) {
    return failed(toEscrowError(error, `POST /v1/batch, ${operation.op}`, reportTo(deps)));
  }
}

const resultOf = ({ created, answer }: Accepted): BatchResult => ({
  status: created ? 201 : 200,
  answer,
});
