import { types } from 'node:util';

/*
 * What may stand in a log. Secrets reach a log by way of error messages: a driver quotes the DSN it
 * could not connect with, the JSON parser quotes the body, a database quotes the row. The patterns
 * below catch those; they are the second line, behind the list of fields that are logged at all.
 */

/** Long enough for every message that says something; a body in a message would be cut here. */
const TEXT_CHARS_MAX = 1_000;

/** An error that wraps more errors than that has lost its way. */
const CAUSES_MAX = 5;

/** Shorter secrets would blot out innocent text; no credential worth the name is shorter. */
const SECRET_CHARS_MIN = 8;

const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // User and password of a URL. Greedy up to the last @, for a password may hold any of :/?#@.
  [/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s'"<>]*@/gi, '$1[redacted]@'],
  [/(\b[a-z][a-z0-9+.-]*:\/\/[^\s'"<>?]*)\?[^\s'"<>]*/gi, '$1?[redacted]'],
  [/\b(bearer|basic)\s+[\w.~+/=-]+/gi, '$1 [redacted]'],
  [/\bwhsec_[\w+/=-]+/g, 'whsec_[redacted]'],
  [
    /\b([\w-]*(?:password|passwd|secret|token|api[-_]?key)["']?\s*[=:]\s*)(?!\[redacted)("[^"]*"|'[^']*'|[^\s,;&]+)/gi,
    '$1[redacted]',
  ],
  // V8 quotes the text: Unexpected token 'x', ..."the text"... is not valid JSON.
  [/"[\s\S]*"(?:\.\.\.)? is not valid JSON/g, '[redacted] is not valid JSON'],
  // MySQL and MariaDB quote the row: Duplicate entry '…' for key; Incorrect … value: '…' for column.
  [/(duplicate entry )'[\s\S]*'( for key)/gi, '$1[redacted]$2'],
  [/(incorrect [a-z]+ value: )'[\s\S]*'( for column)/gi, '$1[redacted]$2'],
];

/** Strips a text of what must not be logged and cuts it to length. */
export type Redact = (text: string) => string;

/** @param secrets credentials known in full, such as API keys; struck out wherever they stand */
export function createRedact(secrets: readonly string[] = []): Redact {
  const known = secrets.filter((secret) => secret.length >= SECRET_CHARS_MIN);
  return (text) => {
    // Cut first, so that no pattern works its way through megabytes; twice as long, so that a
    // secret that is cut in half stands behind the second cut.
    let redacted = text.slice(0, 2 * TEXT_CHARS_MAX);
    for (const secret of known) redacted = redacted.replaceAll(secret, '[redacted]');
    for (const [pattern, replacement] of PATTERNS) {
      redacted = redacted.replace(pattern, replacement);
    }
    if (redacted.length <= TEXT_CHARS_MAX) return redacted;
    return `${redacted.slice(0, TEXT_CHARS_MAX)}…`;
  };
}

/**
 * A URL to show: scheme, host, port and path. User, password, query and fragment are gone, and a
 * text that is no URL is not shown at all.
 *
 * @example safeUrl('mysql://root:secret@db:3306/escrow?ssl=1') // 'mysql://db:3306/escrow'
 */
export function safeUrl(text: string): string {
  if (!URL.canParse(text)) return '[unreadable URL]';
  const { protocol, host, pathname } = new URL(text);
  if (host !== '') return `${protocol}//${host}${pathname}`;
  // Without an authority an @ may still end a password: root:secret@db is a "URL" of scheme root.
  return pathname.includes('@') ? '[unreadable URL]' : `${protocol}${pathname}`;
}

/** What is logged of an error: no stack, no fields that a driver hung on it. */
export interface ErrorFacts {
  name: string;
  code?: string;
  message: string;
  /** The messages of its causes, outermost first. */
  causes?: string[];
}

export function describeError(error: unknown, redact: Redact): ErrorFacts {
  if (!types.isNativeError(error)) return { name: typeof error, message: redact(String(error)) };
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {};
  const causes: string[] = [];
  for (
    let cause = error.cause;
    types.isNativeError(cause) && causes.length < CAUSES_MAX;
    cause = cause.cause
  ) {
    causes.push(redact(`${cause.name}: ${cause.message}`));
  }
  return {
    name: redact(error.name),
    ...code,
    message: redact(error.message),
    ...(causes.length > 0 ? { causes } : {}),
  };
}
