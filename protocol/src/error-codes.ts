/**
 * The one table of error codes. The broker answers them as RFC 9457 problem documents, the SDKs
 * throw them as `EscrowError`; callers branch on `code`. docs/errors.md explains each one, and a
 * test holds the table and that page together.
 *
 * `retryable` means: the same request, sent again later, may succeed.
 */
export const ERRORS = {
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
} as const satisfies Record<string, { status: number; retryable: boolean; title: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** One field that is wrong, and what would be right. */
export interface FieldError {
  path: string;
  message: string;
}

export interface EscrowErrorOptions {
  cause?: unknown;
  fields?: FieldError[];
  /** Facts for the caller, sent along as members of the problem document (the decision on record). */
  details?: Record<string, unknown>;
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
  override readonly name = 'EscrowError';
  readonly code: ErrorCode;
  readonly fields: FieldError[];
  readonly details: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, options: EscrowErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.fields = options.fields ?? [];
    this.details = options.details ?? {};
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  get retryable(): boolean {
    return ERRORS[this.code].retryable;
  }
}

/** True for an `EscrowError` of any copy of this package; narrows to its `code`. */
export function isEscrowError(error: unknown): error is EscrowError {
  return (
    error instanceof Error && error.name === 'EscrowError' && 'code' in error && 'fields' in error
  );
}
