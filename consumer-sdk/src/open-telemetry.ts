import { attempt, optionNames, refuseUnknown, textOfError } from '@escrowmq/protocol';
import {
  type Attributes,
  type Context,
  createTraceState,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type TracerProvider,
  trace,
} from '@opentelemetry/api';
import type { Message } from './delivery/message.js';
import type { Tracing } from './tracing.js';

export type { Tracing } from './tracing.js';

/** Options of `openTelemetry`. */
export interface OpenTelemetryOptions {
  /** Whose spans they are. @default the global one, whenever it is registered */
  tracerProvider?: TracerProvider;
}

const OPEN_TELEMETRY_OPTIONS = optionNames<OpenTelemetryOptions>({ tracerProvider: true });

/**
 * A span of OpenTelemetry around every call of a handler (`escrow process`, kind `CONSUMER`), after
 * the semantic conventions of messaging, and active in whatever the handler calls.
 *
 * Its parent is the span that prepared the message, so that all of it is one trace; and as the
 * conventions demand a link, it is linked to it as well. A batch has many such spans, so its span
 * begins a trace of its own and has the links alone. Every attempt has a span.
 *
 * The context is read as W3C Trace Context, as the broker keeps it, whatever the global propagator.
 *
 * @example
 * import { openTelemetry } from '@escrowmq/consumer/opentelemetry';
 * const consumer = createConsumer({ rabbitmq: 'amqp://localhost', tracing: openTelemetry() });
 */
export function openTelemetry(options: OpenTelemetryOptions = {}): Tracing {
  refuseUnknown(options, OPEN_TELEMETRY_OPTIONS, 'openTelemetry');
  const { tracerProvider } = options;
  const tracer = (tracerProvider ?? trace).getTracer('@escrowmq/consumer');
  return {
    span(messages, handle) {
      const created = messages.flatMap((message) => createdIn(message) ?? []);
      const options = {
        kind: SpanKind.CONSUMER,
        attributes: attributesOf(messages),
        links: created.map((context) => ({ context })),
      };
      const parent = messages.length === 1 ? parentOf(created[0]) : ROOT_CONTEXT;
      return tracer.startActiveSpan('escrow process', options, parent, async (span) => {
        try {
          return await handle();
        } catch (error) {
          fail(span, error);
          throw error;
        } finally {
          span.end();
        }
      });
    },
  };
}

/** Never what is active by chance where RabbitMQ's messages are read. */
const parentOf = (created: SpanContext | undefined): Context =>
  created === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, created);

// The broker lets nothing else through; a message of somebody else's may carry anything.
const TRACEPARENT = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

/** The context of the span that prepared the message; undefined where there was none. */
function createdIn({ headers }: Message): SpanContext | undefined {
  const { traceparent, tracestate } = headers;
  const parsed = typeof traceparent === 'string' ? TRACEPARENT.exec(traceparent) : null;
  if (parsed === null) return undefined;
  const [, traceId = '', spanId = '', flags = ''] = parsed;
  return {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16),
    isRemote: true,
    ...(typeof tracestate === 'string' ? { traceState: createTraceState(tracestate) } : {}),
  };
}

function attributesOf(messages: readonly Message[]): Attributes {
  const [message] = messages;
  if (message === undefined) return {};
  const { topic, group, routingKey } = message;
  const shared = {
    'messaging.system': 'rabbitmq',
    'messaging.operation.name': 'process',
    'messaging.operation.type': 'process',
    'messaging.destination.name': topic,
    'messaging.consumer.group.name': group,
  };
  if (messages.length > 1) return { ...shared, 'messaging.batch.message_count': messages.length };
  return {
    ...shared,
    ...(routingKey === '' ? {} : { 'messaging.rabbitmq.destination.routing_key': routingKey }),
    'messaging.message.id': message.id,
    'messaging.message.body.size': message.body.length,
    'escrow.transaction.id': message.transactionId,
    'escrow.attempts': message.attempts,
  };
}

function fail(span: Span, error: unknown): void {
  const told = new Error(textOfError(error));
  // What can be looked at is recorded as it is, with its stack.
  attempt(() => span.recordException(error instanceof Error ? error : told), undefined);
  const name = attempt(() => (error instanceof Error ? String(error.name) : 'Error'), 'Error');
  span.setAttribute('error.type', name);
  span.setStatus({
    code: SpanStatusCode.ERROR,
    message: attempt(() => messageOf(error), undefined) ?? told.message,
  });
}

const messageOf = (error: unknown) => (error instanceof Error ? String(error.message) : undefined);
