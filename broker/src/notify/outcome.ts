/*
 * What an endpoint's answer means: a pure decision by status and Retry-After alone. The body of an
 * answer says nothing and is not read.
 *
 *   2xx                           delivered
 *   410                           gone: the endpoint wants no more of them, ever
 *   429 or 503 with Retry-After   later: as it asked, and no attempt is spent
 *   anything else                 failed: also a redirect, which would lead past the rules for URLs
 */
export type Outcome =
  | { kind: 'delivered' }
  | { kind: 'gone' }
  | { kind: 'later'; afterMs: number; detail: string }
  | { kind: 'failed'; detail: string };

/** An endpoint that asks for more than a day is asked again after a day. */
const LATER_MS_MAX = 24 * 60 * 60 * 1000;
/** "At once" would be a loop as fast as the endpoint refuses. */
const LATER_MS_MIN = 1_000;

/** @param now UTC milliseconds, for a Retry-After that names a date */
export function outcomeOf(
  answer: { status: number; retryAfter: string | undefined },
  now: number,
): Outcome {
  const { status, retryAfter } = answer;
  if (status >= 200 && status < 300) return { kind: 'delivered' };
  if (status === 410) return { kind: 'gone' };
  if (status === 429 || status === 503) {
    const asked = retryAfterMs(retryAfter, now);
    if (asked !== undefined) {
      const afterMs = Math.min(Math.max(asked, LATER_MS_MIN), LATER_MS_MAX);
      return { kind: 'later', afterMs, detail: `HTTP ${status} with Retry-After` };
    }
  }
  if (status >= 300 && status < 400) {
    return { kind: 'failed', detail: `HTTP ${status}: a redirect, which is not followed` };
  }
  return { kind: 'failed', detail: `HTTP ${status}` };
}

/** The three forms of a date that RFC 9110 allows; `Date.parse` alone would take `7.5` for a month. */
const HTTP_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .*\d{2}:\d{2}:\d{2}/;

/** Milliseconds from now; 0 for a date that is over. Undefined for what is neither form. */
export function retryAfterMs(value: string | undefined, now: number): number | undefined {
  const text = value?.trim() ?? '';
  if (/^\d{1,10}$/.test(text)) return Number(text) * 1_000;
  if (!HTTP_DATE.test(text)) return undefined;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
