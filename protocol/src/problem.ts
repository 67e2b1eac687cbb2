import { z } from 'zod';
import { ERRORS, type ErrorCode, EscrowError, errorRow, type FieldError } from './error-codes.js';
import { named } from './named.js';
import { type OpenWord, openWord } from './open-words.js';
import { prototypeKeyIn } from './travelling-data.js';

const codes = Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]];

/**
 * An RFC 9457 problem document; `code` is stable, `detail` is for people. The list of codes grows:
 * one that is unknown is to be judged by `status` and `retryable`.
 */
export interface Problem {
  /** `urn:escrowmq:error:<code>`. */
  type: string;
  /** What the code means, in one sentence. */
  title: string;
  /** The HTTP status. */
  status: number;
  /** Stable, from the table in docs/errors.md; a newer broker may send one that is not in it. */
  code: OpenWord<ErrorCode>;
  /** What happened, to which id, and what would be right: for people. */
  detail: string;
  /** Whether the same, tried again later, may succeed. */
  retryable: boolean;
  /** The fields that are wrong; absent where it is about no field. */
  errors?: FieldError[] | undefined;
  /** On 503: seconds after which to ask again, as in `Retry-After`. */
  retryAfterSeconds?: number | undefined;
  /** Facts of one code, such as the decision on record. */
  [detail: string]: unknown;
}

/** An RFC 9457 problem document; what it does not know of one is kept. */
export const Problem = named<Problem>()(
  z
    .looseObject({
      type: z.string(),
      title: z.string(),
      status: z.int(),
      code: openWord(codes),
      detail: z.string(),
      retryable: z.boolean(),
      errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
      /** On 503: seconds after which to ask again, as in `Retry-After`. An `EscrowError` has it in its details. */
      retryAfterSeconds: z.number().optional(),
    })
    .meta({ id: 'Problem' }),
);

/** The media type of problem documents. */
export const PROBLEM_CONTENT_TYPE = 'application/problem+json';

/** The problem document of an error. */
export function toProblem(error: EscrowError): Problem {
  const { code, status, retryable } = error;
  return {
    ...error.details,
    type: `urn:escrowmq:error:${code}`,
    title: errorRow(code)?.title ?? code,
    status,
    code,
    detail: error.message,
    retryable,
    ...(error.fields.length > 0 ? { errors: error.fields } : {}),
  };
}

/** The error that a problem document stands for, so that an SDK throws what the broker meant. */
export function fromProblem(problem: Problem): EscrowError {
  const { type, title, status, code, detail, retryable, errors, ...details } = problem;
  const known = errorRow(code) === undefined ? { code, status, retryable } : (code as ErrorCode);
  return new EscrowError(known, detail, { fields: errors ?? [], details });
}

/** Schemas name their own error code in `params.code`; without one, the kind of issue decides. */
function codeOf(issue: z.core.$ZodIssue): ErrorCode {
  if (issue.code === 'unrecognized_keys') return 'UNKNOWN_FIELD';
  if (issue.code === 'custom' && typeof issue.params?.code === 'string') {
    return issue.params.code as ErrorCode;
  }
  return 'INVALID_REQUEST';
}

/** A field error shows at most this many; a hostile body could hold thousands. */
const FIELD_ERRORS_SHOWN_MAX = 10;

/** What is wrong with a request, as one error: the code of its first issue, all issues as fields. */
export function fromZodError(error: z.ZodError, what: string): EscrowError {
  const fields: FieldError[] = error.issues.slice(0, FIELD_ERRORS_SHOWN_MAX).map((issue) => ({
    path: issue.path.join('.'),
    message: issue.message,
  }));
  const [first] = error.issues;
  const code = first === undefined ? 'INVALID_REQUEST' : codeOf(first);
  const said = fields.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`));
  return new EscrowError(code, `${what} is not valid: ${said.join('; ')}`, { fields });
}

/** Parses or throws an `EscrowError` that says which field is wrong. */
export function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const prototypeKey = prototypeKeyIn(value)?.join('.');
  if (prototypeKey === undefined) return parseOuter(schema, value, what);
  const message = 'is a key that would reach a prototype';
  throw new EscrowError('INVALID_REQUEST', `${what} is not valid: ${prototypeKey}: ${message}`, {
    fields: [{ path: prototypeKey, message }],
  });
}

/** For what holds parts that its schema leaves unknown, because each is parsed by itself. */
export function parseOuter<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw fromZodError(result.error, what);
}
