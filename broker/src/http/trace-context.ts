import type { OperationTrace } from '@escrowmq/protocol';
import type { TraceContext } from '../domain/transaction.js';

/*
 * W3C Trace Context, checked by shape alone. It is stored and sent on to consumers, so what is
 * malformed is left out; a request is never refused for it, as the recommendation demands.
 */

// Version ff is forbidden, and so are a trace id or a parent id of zeros only. Later versions may
// append fields; what they mean is unknown, so only those that look like version 00 pass.
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The recommendation's own bound on what must be carried along. */
const TRACESTATE_CHARS_MAX = 512;
const TRACESTATE_MEMBERS_MAX = 32;
const MEMBER =
  /^[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;

function isTracestate(value: string): boolean {
  if (value.length > TRACESTATE_CHARS_MAX) return false;
  const members = value.split(',').map((member) => member.trim());
  return (
    members.length <= TRACESTATE_MEMBERS_MAX &&
    members.every((member) => member === '' || MEMBER.test(member))
  );
}

/** What a request's headers, or an operation of a batch, say of their trace. */
type TraceFields = OperationTrace | Readonly<Record<string, unknown>>;

/** The trace context of a request; empty without a well-formed `traceparent`. */
export function traceContextOf(headers: TraceFields): TraceContext {
  const { traceparent, tracestate } = headers;
  if (typeof traceparent !== 'string' || !TRACEPARENT.test(traceparent)) return {};
  if (typeof tracestate !== 'string' || tracestate === '' || !isTracestate(tracestate)) {
    return { traceparent };
  }
  return { traceparent, tracestate };
}
