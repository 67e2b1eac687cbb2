import { inSpan } from '@escrowmq/database';
import { type MessageInput, OperationTrace, type TransactionAnswer } from '@escrowmq/protocol';
import type { ProducerSettings } from '../options.js';
import type { TracedOperation } from '../tracing.js';
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
  {
    tracing,
    producerGroup,
    logger,
    transactionBytesMax,
  }: Pick<ProducerSettings, 'tracing' | 'producerGroup' | 'logger' | 'transactionBytesMax'>,
): TracedOperations {
  if (tracing === undefined) {
    return {
      run: (operation, { timeoutMs }) => operations.run(operation, timeoutMs),
      prepareHere: async (_, work) => work(undefined),
    };
  }
  const failed = (error: unknown) =>
    logger.warn({ error }, 'tracing failed; what it was to trace went on without it');
  const span = <T>(
    operation: TracedOperation,
    work: (trace: OperationTrace | undefined) => Promise<T>,
  ): Promise<T> => inSpan<OperationTrace, T>((call) => tracing.span(operation, call), work, failed);
  /** What a tracer gives that is no trace, or does not fit any more, is left out. */
  function checked(trace: OperationTrace | undefined): OperationTrace | undefined {
    const parsed = OperationTrace.safeParse(trace);
    if (parsed.success || trace === undefined) return trace;
    failed(parsed.error);
    return undefined;
  }
  function carrying(operation: Operation, given: OperationTrace): Operation {
    const trace = checked(given);
    if (trace === undefined) return operation;
    try {
      return withTrace(operation, trace, transactionBytesMax);
    } catch (error) {
      failed(error);
      return operation;
    }
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
      return span(traced(op, id, messages), async (trace) => {
        const carries = trace !== undefined && given === undefined && !isVerdict;
        return operations.run(carries ? carrying(operation, trace) : operation, timeoutMs);
      });
    },
    prepareHere: ({ id, messages }, work) =>
      span(traced('prepare', id, messages), async (trace) => work(checked(trace))),
  };
}
