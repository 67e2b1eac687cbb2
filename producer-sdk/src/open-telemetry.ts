import {
  attempt,
  messageIdOf,
  type OperationTrace,
  optionNames,
  refuseUnknown,
  textOfError,
} from '@escrowmq/protocol';
import {
  type Attributes,
  isSpanContextValid,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TracerProvider,
  trace,
} from '@opentelemetry/api';
import type { TracedOperation, Tracing } from './tracing.js';

export type { TracedOperation, Tracing } from './tracing.js';

/** Options of `openTelemetry`. */
export interface OpenTelemetryOptions {
  /** Whose spans they are. @default the global one, whenever it is registered */
  tracerProvider?: TracerProvider;
}

const OPEN_TELEMETRY_OPTIONS = optionNames<OpenTelemetryOptions>({ tracerProvider: true });

/**
 * Spans of OpenTelemetry for what a producer does, after the semantic conventions of messaging.
 * `escrow prepare` and `escrow send` create messages (kind `PRODUCER`): the messages carry the
 * span's context, so that a consumer's span is its child. `escrow commit` and `escrow rollback`
 * (kind `CLIENT`) tell the verdict. The names have no topic, because a transaction may have several.
 *
 * The context travels as W3C Trace Context whatever the global propagator is: the broker keeps
 * `traceparent` and `tracestate` and nothing else. Baggage stays behind.
 *
 * @example
 * import { openTelemetry } from '@escrowmq/producer/opentelemetry';
 * const producer = createProducer({ brokers, producerGroup: 'accounts', tracing: openTelemetry() });
 */
export function openTelemetry(options: OpenTelemetryOptions = {}): Tracing {
  refuseUnknown(options, OPEN_TELEMETRY_OPTIONS, 'openTelemetry');
  const { tracerProvider } = options;
  const tracer = (tracerProvider ?? trace).getTracer('@escrowmq/producer');
  return {
    span(operation, work) {
      const { op } = operation;
      const kind = CREATES.has(op) ? SpanKind.PRODUCER : SpanKind.CLIENT;
      const options = { kind, attributes: attributesOf(operation) };
      return tracer.startActiveSpan(`escrow ${op}`, options, async (span) => {
        try {
          return await work(traceOf(span));
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

const CREATES: ReadonlySet<string> = new Set(['prepare', 'send']);

/** The conventions know "create", "send", and none for a verdict that drops messages. */
const OPERATION_TYPES = { prepare: 'create', send: 'send', commit: 'send', rollback: undefined };

function attributesOf({ op, transactionId, producerGroup, messages }: TracedOperation): Attributes {
  const type = OPERATION_TYPES[op];
  const [first] = messages;
  const isOneTopic = messages.every(({ topic }) => topic === first?.topic);
  return {
    'messaging.system': 'rabbitmq',
    'messaging.operation.name': op,
    ...(type === undefined ? {} : { 'messaging.operation.type': type }),
    ...(first !== undefined && isOneTopic ? { 'messaging.destination.name': first.topic } : {}),
    ...(messages.length > 1 ? { 'messaging.batch.message_count': messages.length } : {}),
    ...(messages.length === 1 ? { 'messaging.message.id': messageIdOf(transactionId, 0) } : {}),
    ...(messages.length === 1 && first?.routingKey
      ? { 'messaging.rabbitmq.destination.routing_key': first.routingKey }
      : {}),
    'escrow.transaction.id': transactionId,
    'escrow.producer_group': producerGroup,
  };
}

/** The recommendation's bound on what must be carried; the broker takes no more. */
const TRACESTATE_CHARS_MAX = 512;

/** Undefined while no SDK is registered: then a span has no identity. */
function traceOf(span: Span): OperationTrace | undefined {
  const spanContext = span.spanContext();
  if (!isSpanContextValid(spanContext)) return undefined;
  const { traceId, spanId, traceFlags, traceState } = spanContext;
  const flags = traceFlags.toString(16).padStart(2, '0');
  const traceparent = `00-${traceId}-${spanId}-${flags}`;
  const tracestate = traceState?.serialize() ?? '';
  return tracestate === '' || tracestate.length > TRACESTATE_CHARS_MAX
    ? { traceparent }
    : { traceparent, tracestate };
}

function fail(span: Span, error: unknown): void {
  const told = new Error(textOfError(error));
  // That of an EscrowError, or of the system.
  const code = attempt(() => codeOf(error), undefined) ?? 'Error';
  // What can be looked at is recorded as it is, with its stack.
  attempt(() => span.recordException(error instanceof Error ? error : told), undefined);
  span.setAttribute('error.type', code);
  span.setStatus({
    code: SpanStatusCode.ERROR,
    message: attempt(() => messageOf(error), undefined) ?? told.message,
  });
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
}

const messageOf = (error: unknown) => (error instanceof Error ? String(error.message) : undefined);
