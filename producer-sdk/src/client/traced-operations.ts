import type { MessageInput, OperationTrace, TransactionAnswer } from '@escrowmq/protocol';
import type { TracedOperation, Tracing } from '../tracing.js';
import { type Operation, withTrace } from './operation-json.js';
import type { Operations } from './operations.js';

/** What is known of an operation beside its JSON. */
export interface AboutOperation {
  timeoutMs: number;
  /** Of the transaction. @default none: only its id is known */
  messages?: readonly MessageInput[];
  /** Given by the caller; stands in the JSON already. */
  trace?: OperationTrace | undefined;
}

/** Operations in spans; without a tracing, the operations as they are. */
export interface TracedOperations {
  /** @throws {EscrowError} like `Operations.run` */
  run(operation: Operation, about: AboutOperation): Promise<TransactionAnswer>;
  /**
   * For what is prepared without the broker: calls `work` in the span of a prepare, with the trace
   * that its messages are to carry.
   */
  prepareHere<T>(
    about: { id: string; messages: readonly MessageInput[] },
    work: (trace: OperationTrace | undefined) => T,
  ): Promise<T>;
}

export function traceOperations(
  operations: Operations,
  { tracing, producerGroup }: { tracing: Tracing | undefined; producerGroup: string },
): TracedOperations {
  if (tracing === undefined) {
    return {
      run: (operation, { timeoutMs }) => operations.run(operation, timeoutMs),
      prepareHere: async (_, work) => work(undefined),
    };
  }
  const traced = (
    op: TracedOperation['op'],
    transactionId: string,
    messages: readonly MessageInput[],
  ): TracedOperation => ({
    op,
    transactionId,
    producerGroup,
    messages: messages.map(({ topic, routingKey }) => ({ topic, routingKey })),
  });
  return {
    run(operation, { timeoutMs, messages = [], trace: given }) {
      const { op, id } = operation;
      const isVerdict = op === 'commit' || op === 'rollback';
      return tracing.span(traced(op, id, messages), async (trace) => {
        const carries = trace !== undefined && given === undefined && !isVerdict;
        return operations.run(carries ? withTrace(operation, trace) : operation, timeoutMs);
      });
    },
    prepareHere: ({ id, messages }, work) =>
      tracing.span(traced('prepare', id, messages), async (trace) => work(trace)),
  };
}
