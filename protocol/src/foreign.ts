/*
 * Reading what code of others threw, returned or passed. It may be anything: an object without a
 * prototype, a proxy that was revoked, an error whose message is a getter that throws. Each look at
 * such a thing may throw, and what throws where nobody expects it ends the process. So it is looked at
 * here only, and nothing here ever throws.
 */

/** What `read` returned, or `otherwise` when it threw. */
export function attempt<T, D>(read: () => T, otherwise: D): T | D {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Whether it is an error of that name: by name, so that one of another copy of a package counts. */
export function isErrorNamed(error: unknown, name: string): error is Error {
  return attempt(() => error instanceof Error && error.name === name, false);
}

/** What was thrown, as one text: `Error: no connection`. Never throws, whatever it was. */
export function textOfError(error: unknown): string {
  return attempt(() => describe(error), undefined) ?? 'something that has no text';
}

function describe(error: unknown): string {
  if (typeof error === 'function') return `the function ${wordIn(error, 'name') || '(anonymous)'}`;
  if (typeof error !== 'object' || error === null) return String(error);
  const message = wordIn(error, 'message');
  const isError = attempt(() => error instanceof Error, false);
  if (message === undefined && !isError) return plainText(error);
  return `${wordIn(error, 'name') ?? 'Error'}: ${message ?? '(its message is no text)'}`;
}

/** A property that is a word; undefined when it is none, or can't be read. */
function wordIn(object: object, name: string): string | undefined {
  const value = attempt(() => (object as Record<string, unknown>)[name], undefined);
  if (typeof value === 'string') return value;
  const isPlain = typeof value === 'number' || typeof value === 'bigint';
  return isPlain ? String(value) : undefined;
}

function plainText(object: object): string {
  const text = attempt(() => String(object), undefined);
  return text === undefined || text === '' ? 'an object that has no text' : text;
}

/** Deeper causes say nothing new; a cycle ends as well. */
const CAUSES_MAX = 5;
/** Of each: what an error aggregates may be thousands. */
const ERRORS_MAX = 3;
/** Of the whole: a page of a terminal or two. */
const STACK_CHARS_MAX = 8_000;

/** What was thrown with its stack and those of its causes, a line each; for people. Never throws. */
export function stackOfError(error: unknown): string {
  const lines: string[] = [];
  addStack(lines, error, { head: '', depth: CAUSES_MAX });
  const text = lines.join('\n');
  return text.length <= STACK_CHARS_MAX ? text : `${text.slice(0, STACK_CHARS_MAX)} …`;
}

function addStack(lines: string[], error: unknown, at: { head: string; depth: number }): void {
  lines.push(`${at.head}${textOfError(error)}`, ...framesOf(error));
  if (at.depth === 0 || typeof error !== 'object' || error === null) return;
  const { cause, errors } = attempt(() => innerOf(error), NOTHING_INSIDE);
  const depth = at.depth - 1;
  if (cause !== undefined) addStack(lines, cause, { head: 'caused by ', depth });
  const several: unknown[] = attempt(
    () => (Array.isArray(errors) ? errors.slice(0, ERRORS_MAX) : []),
    [],
  );
  for (const one of several) addStack(lines, one, { head: 'one of ', depth });
}

interface Inner {
  cause?: unknown;
  errors?: unknown;
}

const NOTHING_INSIDE: Inner = {};
const innerOf = (error: Inner): Inner => ({ cause: error.cause, errors: error.errors });

const FRAME = /^\s+at /;

function framesOf(error: unknown): string[] {
  const stack = attempt(() => (error as { stack?: unknown } | undefined)?.stack, undefined);
  return typeof stack === 'string' ? stack.split('\n').filter((line) => FRAME.test(line)) : [];
}
