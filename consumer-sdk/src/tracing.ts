import type { Handler } from './delivery/consume-one.js';
import type { Message } from './delivery/message.js';

/**
 * Puts the work of handlers into traces. `@escrowmq/consumer/opentelemetry` has the one for
 * OpenTelemetry; another tracer needs no more than this function.
 */
export interface Tracing {
  /**
   * Calls `handle` once, inside a span, and ends the span with it: as failed, when it throws or
   * rejects.
   *
   * @param messages what the handler gets: one, or those of a batch; each carries the trace of its
   *   prepare in `headers.traceparent` and `headers.tracestate`, where it had one
   * @returns what `handle` returned; its error is passed on as it is
   */
  span(messages: readonly Message[], handle: () => unknown): unknown;
}

/** The handler inside a span for each message; the handler itself, without a tracing. */
export function tracedHandler<Data>(
  handler: Handler<Data>,
  tracing: Tracing | undefined,
): Handler<Data> {
  if (tracing === undefined) return handler;
  return (message) => tracing.span([message], () => handler(message));
}
