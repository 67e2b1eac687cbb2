import { attempt, isErrorNamed } from './foreign.js';
import type { OpenWord } from './open-words.js';

const TABLE = {
  INVALID_JSON: { status: 400, retryable: false, title: 'The body is not valid JSON' },
  INVALID_REQUEST: { status: 400, retryable: false, title: 'A field has the wrong type or value' },
  UNKNOWN_FIELD: {
    status: 400,
    retryable: false,
    title: 'The request has a field that is unknown',
  },
  INVALID_ID: { status: 400, retryable: false, title: 'The id is not a UUID of version 7' },
  INVALID_NAME: { status: 400, retryable: false, title: 'A name has characters it may not have' },
  INVALID_BASE64: { status: 400, retryable: false, title: 'dataBase64 is not valid base64' },
  TOO_MANY_MESSAGES: { status: 400, retryable: false, title: 'Too many messages' },
  FORBIDDEN_HEADER: { status: 400, retryable: false, title: 'A message header may not be set' },
  UNAUTHENTICATED: { status: 401, retryable: false, title: 'The API key is missing or wrong' },
  FORBIDDEN: { status: 403, retryable: false, title: 'This API key may not do that' },
  TRANSACTION_NOT_FOUND: { status: 404, retryable: false, title: 'No such transaction' },
  PRODUCER_GROUP_NOT_FOUND: { status: 404, retryable: false, title: 'No such producer group' },
  WEBHOOK_NOT_FOUND: { status: 404, retryable: false, title: 'No such webhook' },
  ROUTE_NOT_FOUND: { status: 404, retryable: false, title: 'No such route' },
  REQUEST_TIMEOUT: { status: 408, retryable: true, title: 'The request did not arrive in time' },
  STATE_CONFLICT: {
    status: 409,
    retryable: false,
    title: 'The transaction is decided or does not allow that',
  },
  CONTENT_CONFLICT: {
    status: 409,
    retryable: false,
    title: 'This id is taken by a transaction with other content',
  },
  WEBHOOK_CONFLICT: {
    status: 409,
    retryable: false,
    title: 'The webhook can not be that way beside what there is',
  },
  MESSAGE_NOT_CANCELLABLE: {
    status: 409,
    retryable: false,
    title: 'A message does not wait, or not any more, and can not be cancelled',
  },
  BODY_TOO_LARGE: { status: 413, retryable: false, title: 'The request is too large' },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    retryable: false,
    title: 'The content type is not application/json',
  },
  UNKNOWN_PRODUCER_GROUP: {
    status: 422,
    retryable: false,
    title: 'The producer group is not registered',
  },
  ID_TIME_OUT_OF_RANGE: {
    status: 422,
    retryable: false,
    title: 'The time inside the id is too old or too far ahead',
  },
  CHECK_URL_NOT_ALLOWED: {
    status: 422,
    retryable: false,
    title: 'The broker may not call this URL of a producer group',
  },
  WEBHOOK_URL_NOT_ALLOWED: {
    status: 422,
    retryable: false,
    title: 'The broker may not call this webhook URL',
  },
  MESSAGE_DATA_MISSING: {
    status: 422,
    retryable: false,
    title: 'The commit lacks the data that prepare left open',
  },
  INTERNAL_ERROR: { status: 500, retryable: true, title: 'The broker made a mistake' },
  BROKER_BUSY: { status: 503, retryable: true, title: 'The broker is at its capacity' },
  STORE_UNAVAILABLE: { status: 503, retryable: true, title: 'The store can not be reached' },
  RABBITMQ_UNAVAILABLE: { status: 503, retryable: true, title: 'RabbitMQ can not be reached' },
  SHUTTING_DOWN: { status: 503, retryable: true, title: 'The broker is shutting down' },

  // Never sent over HTTP: the SDKs and the broker's start-up use these.
  BROKER_UNREACHABLE: { status: 0, retryable: true, title: 'No broker address answered' },
  INVALID_CONFIGURATION: { status: 0, retryable: false, title: 'A setting is missing or wrong' },
  SCHEMA_TOO_NEW: { status: 0, retryable: false, title: 'The database belongs to a newer version' },
  DATABASE_UNAVAILABLE: {
    status: 0,
    retryable: true,
    title: "The producer's or consumer's own database does not answer",
  },
  ALREADY_ROLLED_BACK: {
    status: 0,
    retryable: false,
    title: 'A check rolled the transaction back before it began',
  },
  TRANSACTION_MISUSED: {
    status: 0,
    retryable: false,
    title: 'The local transaction was not used as it must be',
  },
  OUTCOME_UNKNOWN: {
    status: 0,
    retryable: false,
    title: 'Whether the local transaction committed is not known yet',
  },
  INVALID_SIGNATURE: {
    status: 401,
    retryable: false,
    title: 'The signature of a check is missing, wrong or too old',
  },
  CHECK_NOT_ANSWERED: {
    status: 500,
    retryable: true,
    title: 'The check endpoint can not answer',
  },
  COMPENSATION_NOT_DONE: {
    status: 503,
    retryable: true,
    title: 'The compensation is not done, or not known to be',
  },
} as const satisfies Record<string, ErrorRow>;

/** What the table says of one code. */
interface ErrorRow {
  /** Status of the HTTP answer; 0 for what never goes over HTTP. */
  status: number;
  /** Whether the same request, sent again later, may succeed. */
  retryable: boolean;
  /** What it means, in a sentence. */
  title: string;
  /** What callers of 0.1 get in its place; absent for what is as old as 0.1. */
  before?: string;
}

/** What an `EscrowError` and a problem document are told apart by; docs/errors.md explains each one. */
export type ErrorCode = keyof typeof TABLE;

/**
 * The one table of error codes. The broker answers them as RFC 9457 problem documents, the SDKs
 * throw them as `EscrowError`; callers branch on `code`. docs/errors.md explains each one, and a
 * test holds the table and that page together.
 *
 * `retryable` means: the same request, sent again later, may succeed.
 *
 * `before` is for codes that 0.1 did not have: the code of 0.1, of the same class of status and as
 * retryable, that callers get who do not name their version. A test holds that none lacks it.
 */
export const ERRORS: Readonly<Record<ErrorCode, ErrorRow>> = TABLE;

/** The row of a code, or `undefined` for one that only a newer peer knows. */
export function errorRow(code: OpenWord<ErrorCode>): ErrorRow | undefined {
  return Object.hasOwn(ERRORS, code) ? ERRORS[code as ErrorCode] : undefined;
}

/** One field that is wrong, and what would be right. */
export interface FieldError {
  /** Where it stands, with dots: `messages.0.topic`; empty for the whole. */
  path: string;
  /** What would be right. */
  message: string;
}

/** What an `EscrowError` may have beside its message. */
export interface EscrowErrorOptions {
  /** What was thrown before it. @default none */
  cause?: unknown;
  /** The fields that are wrong. @default [] */
  fields?: FieldError[];
  /**
   * Facts for the caller, sent along as members of the problem document (the decision on record).
   * @default {}
   */
  details?: Record<string, unknown>;
}

/** What a newer peer said of a code that is not in the table. */
export interface UnknownCode {
  /** The code that the peer sent. */
  code: string;
  /** The HTTP status. */
  status: number;
  /** Whether the same, tried again later, may succeed. */
  retryable: boolean;
}

/**
 * The only error class of EscrowMQ.
 *
 * @example
 * try { await producer.commit(id); } catch (error) {
 *   if (error instanceof Error && 'code' in error && error.code === 'STATE_CONFLICT') …
 * }
 */
export class EscrowError extends Error {
  /** What it is known by, whichever copy of the package made it. */
  override readonly name = 'EscrowError';
  /** A newer broker may have sent one that is not in the table: then judge by the two below it. */
  readonly code: OpenWord<ErrorCode>;
  /** Status of the HTTP answer; 0 for what never goes over HTTP. */
  readonly status: number;
  /** Whether the same, tried again later, may succeed. */
  readonly retryable: boolean;
  /** The fields that are wrong; empty where it is about none. */
  readonly fields: FieldError[];
  /** Facts of the code, such as the decision on record. */
  readonly details: Record<string, unknown>;

  /** An error of one code. @param message what happened, to which id, and what would be right */
  constructor(code: ErrorCode | UnknownCode, message: string, options: EscrowErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const { status, retryable } = typeof code === 'string' ? ERRORS[code] : code;
    this.code = typeof code === 'string' ? code : code.code;
    this.status = status;
    this.retryable = retryable;
    this.fields = options.fields ?? [];
    this.details = options.details ?? {};
  }
}

/** True for an `EscrowError` of any copy of this package; narrows to its `code`. Never throws. */
export function isEscrowError(error: unknown): error is EscrowError {
  return (
    isErrorNamed(error, 'EscrowError') && attempt(() => 'code' in error && 'fields' in error, false)
  );
}
