import { z } from 'zod';
import { LIMITS } from './limits.js';
import { MessageDataList } from './message-data.js';
import { named } from './named.js';
import { TransactionId } from './names.js';
import {
  type PrepareInput,
  type PrepareRequest,
  prepareSchema,
  type SendInput,
  type SendRequest,
  sendSchema,
} from './prepare.js';
import { Problem } from './problem.js';
import { type CommitRequest, TransactionAnswer } from './transactions.js';

/**
 * The W3C trace context of one operation; without it, that of the request's headers counts. A
 * batch carries calls of many traces.
 */
export interface OperationTrace {
  /** Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`; at most 100 characters. */
  traceparent: string;
  /** What vendors add, at most 512 characters. @default none */
  tracestate?: string | undefined;
}

/** The W3C trace context of one operation. */
export const OperationTrace = named<OperationTrace>()(
  z.strictObject({
    traceparent: z.string().max(100),
    tracestate: z.string().max(512).optional(),
  }),
);

const trace = OperationTrace.optional();

/** Says that an operation is a prepare. */
interface PrepareOp {
  /** What to do. */
  op: 'prepare';
  /** The trace that its messages carry. @default that of the request's headers */
  trace?: OperationTrace | undefined;
}
/** Says that an operation is a send. */
interface SendOp {
  /** What to do. */
  op: 'send';
  /** The trace that its messages carry. @default that of the request's headers */
  trace?: OperationTrace | undefined;
}

/** A prepare in a batch. */
export interface PrepareOperation extends PrepareRequest, PrepareOp {}
/** A prepare in a batch, as a caller writes it. */
export interface PrepareOperationInput extends PrepareInput, PrepareOp {}
/** A send in a batch. */
export interface SendOperation extends SendRequest, SendOp {}
/** A send in a batch, as a caller writes it. */
export interface SendOperationInput extends SendInput, SendOp {}

/** A commit in a batch. */
export interface CommitOperation extends CommitRequest {
  /** What to do. */
  op: 'commit';
  /** Of the transaction. */
  id: string;
}

/** A rollback in a batch. */
export interface RollbackOperation {
  /** What to do. */
  op: 'rollback';
  /** Of the transaction. */
  id: string;
}

/** One operation of a batch. Those on one id run in the order given. */
export type BatchOperation = PrepareOperation | SendOperation | CommitOperation | RollbackOperation;
/** One operation of a batch, as a caller writes it. */
export type BatchOperationInput =
  | PrepareOperationInput
  | SendOperationInput
  | CommitOperation
  | RollbackOperation;

/** One operation of a batch. Those on one id run in the order given. */
export const BatchOperation = named<BatchOperation, BatchOperationInput>()(
  z
    .discriminatedUnion('op', [
      prepareSchema.extend({ op: z.literal('prepare'), trace }),
      sendSchema.extend({ op: z.literal('send'), trace }),
      z.strictObject({
        op: z.literal('commit'),
        id: TransactionId,
        messageData: MessageDataList.optional(),
      }),
      z.strictObject({ op: z.literal('rollback'), id: TransactionId }),
    ])
    .meta({ id: 'BatchOperation' }),
);

/** `POST /v1/batch`. Each operation is parsed by itself, so that a wrong one fails alone. */
export interface BatchRequest {
  /** Each is a `BatchOperation`, or is refused by itself; 1 to 500. */
  operations: unknown[];
}

/** `POST /v1/batch`. Each operation is parsed by itself, so that a wrong one fails alone. */
export const BatchRequest = named<BatchRequest>()(
  z
    .strictObject({ operations: z.array(z.unknown()).min(1).max(LIMITS.operationsPerBatchMax) })
    .meta({ id: 'BatchRequest' }),
);

/** What became of one operation: its answer or its problem. */
export interface BatchResult {
  /** The HTTP status that the operation would have had alone. */
  status: number;
  /** There when it succeeded. */
  answer?: TransactionAnswer | undefined;
  /** There when it failed. */
  problem?: Problem | undefined;
}

/** The HTTP status that the operation would have had alone, and its answer or its problem. */
export const BatchResult = named<BatchResult>()(
  z
    .object({
      status: z.int(),
      answer: TransactionAnswer.optional(),
      problem: Problem.optional(),
    })
    .meta({ id: 'BatchResult' }),
);

/** The answer to a batch. */
export interface BatchAnswer {
  /** One for each operation, in their order. */
  results: BatchResult[];
}

/** Results in the order of the operations. */
export const BatchAnswer = named<BatchAnswer>()(
  z.object({ results: z.array(BatchResult) }).meta({ id: 'BatchAnswer' }),
);
