import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { textOfBytes } from './names.js';

/**
 * Which AMQP headers a caller may set. Measured on RabbitMQ: `CC` and `BCC` deliver copies into
 * queues of other tenants, `x-…` steers RabbitMQ itself, so a name is allowed by its shape and not
 * refused by a list of known bad ones. `escrow-…` and the trace headers are the broker's own.
 */
const HEADER_NAME = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/;
const RESERVED_HEADER = /^(x-.*|cc|bcc|escrow-.*|traceparent|tracestate|sender-selected.*)$/i;

function headerNameProblem(headerName: string): string | undefined {
  if (headerName.length > LIMITS.headerNameCharsMax) {
    return `header names have at most ${LIMITS.headerNameCharsMax} characters`;
  }
  if (!HEADER_NAME.test(headerName)) {
    return `header ${JSON.stringify(headerName)}: names are letters, digits, dots, dashes, colons and underscores`;
  }
  if (RESERVED_HEADER.test(headerName)) {
    return `header ${headerName} is reserved: CC, BCC, x-*, escrow-* and trace headers are not the caller's to set`;
  }
  return undefined;
}

/**
 * A caller's own AMQP headers, by name: strings of well-formed Unicode of at most 1024 bytes, numbers or
 * booleans. At most 32 of them, each name of at most 128 letters, digits, dots, dashes, colons and
 * underscores; `CC`, `BCC`, `x-*`, `escrow-*` and the trace headers are not the caller's to set. A number
 * is a whole one from -2^63 to 2^63, or below 2^50 with a fraction.
 */
export interface MessageHeaders {
  /** The value of the header with that name. */
  [headerName: string]: string | number | boolean;
}

/** Holds headers to the names and values that a caller may set; refused ones are FORBIDDEN_HEADER. */
export const MessageHeaders = named<MessageHeaders>()(
  z
    .record(
      z.string(),
      z.union([textOfBytes(LIMITS.headerValueBytesMax), z.number(), z.boolean()], {
        error: `header values are strings of well-formed Unicode of at most ${LIMITS.headerValueBytesMax} bytes, finite numbers, or booleans`,
      }),
    )
    .superRefine((headers, context) => {
      const names = Object.keys(headers);
      if (names.length > LIMITS.headersPerMessageMax) {
        context.addIssue({
          code: 'custom',
          message: `at most ${LIMITS.headersPerMessageMax} headers, got ${names.length}`,
        });
      }
      for (const headerName of names) {
        const message = headerNameProblem(headerName);
        if (message === undefined) continue;
        context.addIssue({ code: 'custom', message, params: { code: 'FORBIDDEN_HEADER' } });
      }
      for (const [headerName, value] of Object.entries(headers)) {
        if (typeof value !== 'number' || hasAmqpNumber(value)) continue;
        context.addIssue({
          code: 'custom',
          message: `header ${headerName} is ${value}: a number in a header is a whole one from -2^63 to 2^63, or below 2^50 with a fraction; write others as strings`,
        });
      }
    }),
);

const INT64_END = 2 ** 63;
const FRACTION_END = 2 ** 50;

/**
 * A header's number has a type of its own in AMQP, and clients tell it by the value: what has a
 * fraction is a double, but beyond 2^50 hardly any number has one, and amqplib takes it for a whole
 * one there; whole ones have 64 bits.
 */
function hasAmqpNumber(value: number): boolean {
  if (!Number.isInteger(value)) return Math.abs(value) < FRACTION_END;
  return value >= -INT64_END && value < INT64_END;
}
