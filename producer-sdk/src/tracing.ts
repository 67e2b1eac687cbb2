import type { OperationTrace } from '@escrowmq/protocol';

/** What a span of this SDK is about. */
export interface TracedOperation {
  /** What the broker is asked for; its span is called `escrow <op>`. */
  op: 'prepare' | 'send' | 'commit' | 'rollback';
  /** Of the transaction. */
  transactionId: string;
  /** The group of this producer. */
  producerGroup: string;
  /** Of the transaction; empty where only its id is known, as for a `commit` on its own. */
  messages: readonly {
    /** The topic that it goes to. */
    topic: string;
    /** What it is routed by; absent where none was given. */
    routingKey?: string | undefined;
  }[];
}

/**
 * Puts what a producer does into traces. `@escrowmq/producer/opentelemetry` has the one for
 * OpenTelemetry; another tracer needs no more than this function.
 */
export interface Tracing {
  /**
   * Calls `work` once, inside a span, and ends the span with it: as failed, when it rejects.
   *
   * @param work takes the span's own W3C trace context, which the messages of a prepare and a send
   *   carry to their consumers; undefined: they carry none
   * @returns what `work` returned; its error is passed on as it is
   */
  span<T>(
    operation: TracedOperation,
    work: (trace: OperationTrace | undefined) => Promise<T>,
  ): Promise<T>;
}
