import { inSpan } from '@escrowmq/database';
import { causedBy } from './cause.js';
import type { Handler } from './delivery/consume-one.js';
import type { Message } from './delivery/message.js';
import type { Log } from './events.js';

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
  { tracing, log }: { tracing: Tracing | undefined; log: Log },
): Handler<Data> {
  if (tracing === undefined) return handler;
  return (message) => handleInSpan({ tracing, log }, [message], () => handler(message));
}

/** Whatever the tracing does, the handler is called once and its end is its own. */
export function handleInSpan(
  { tracing, log }: { tracing: Tracing; log: Log },
  messages: readonly Message[],
  handle: () => unknown,
): Promise<unknown> {
  return inSpan<never, unknown>(
    (call) => tracing.span(messages, call),
    async () => handle(),
    (error) => {
      const [first] = messages;
      if (first === undefined) return;
      const { topic, group, id: messageId } = first;
      const about = { topic, group, messageId };
      log({ event: 'callbackFailed', callback: 'tracing', ...causedBy(error), ...about });
    },
  );
}
