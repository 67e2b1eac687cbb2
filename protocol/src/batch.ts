import { z } from 'zod';
import { LIMITS } from './limits.js';
import { MessageDataList } from './messages.js';
import { TransactionId } from './names.js';
import { Problem } from './problem.js';
import { PrepareRequest, SendRequest, TransactionAnswer } from './transactions.js';

/**
 * The W3C trace context of one operation; without it, that of the request's headers counts. A
 * batch carries calls of many traces.
 */
export const OperationTrace = z.strictObject({
  traceparent: z.string().max(100),
  tracestate: z.string().max(512).optional(),
});
export type OperationTrace = z.infer<typeof OperationTrace>;

const trace = OperationTrace.optional();

/** One operation of a batch. Those on one id run in the order given. */
export const BatchOperation = z
  .discriminatedUnion('op', [
    PrepareRequest.extend({ op: z.literal('prepare'), trace }),
    SendRequest.extend({ op: z.literal('send'), trace }),
    z.strictObject({
      op: z.literal('commit'),
      id: TransactionId,
      messageData: MessageDataList.optional(),
    }),
    z.strictObject({ op: z.literal('rollback'), id: TransactionId }),
  ])
  .meta({ id: 'BatchOperation' });
export type BatchOperationInput = z.input<typeof BatchOperation>;
export type BatchOperation = z.output<typeof BatchOperation>;

/** `POST /v1/batch`. Each operation is parsed by itself, so that a wrong one fails alone. */
export const BatchRequest = z
  .strictObject({ operations: z.array(z.unknown()).min(1).max(LIMITS.operationsPerBatchMax) })
  .meta({ id: 'BatchRequest' });

/** The HTTP status that the operation would have had alone, and its answer or its problem. */
export const BatchResult = z
  .object({
    status: z.int(),
    answer: TransactionAnswer.optional(),
    problem: Problem.optional(),
  })
  .meta({ id: 'BatchResult' });
export type BatchResult = z.infer<typeof BatchResult>;

/** Results in the order of the operations. */
export const BatchAnswer = z.object({ results: z.array(BatchResult) }).meta({ id: 'BatchAnswer' });
export type BatchAnswer = z.infer<typeof BatchAnswer>;
