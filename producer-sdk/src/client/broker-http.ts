import { Deadline } from '@escrowmq/database';
import { CLIENT_HEADER, clientOf, EscrowError, Problem } from '@escrowmq/protocol';
import { Pool } from 'undici';
import { pauseBeforeRepeatMs } from '../back-off.js';
import type { ProducerSettings } from '../options.js';
import { exchange } from './http-exchange.js';
import { refusalFrom } from './refusals.js';

/**
 * HTTP calls to any of several broker addresses. Every call made here is idempotent by its id, so
 * it may be repeated: after a lost connection, a time-out, a 5xx, an answer that no broker would
 * give, or a problem that says `retryable`. A repeat goes to the address that may be asked soonest;
 * one that failed rests for its back-off, or for the `Retry-After` it gave.
 *
 * What a crash or a lost reply does here: nothing is known of the call, and the same call is sent
 * again. That is why no answer but a well-formed one ends a call early.
 */
interface BrokerRequest<T> {
  method: 'GET' | 'POST' | 'PUT';
  path: string;
  body?: string;
  /** Reads the parsed JSON of a 2xx answer; throws when it is not what a broker answers. */
  read(value: unknown): T;
  /**
   * For long polls: how long one attempt may take. They have connections of their own, so that
   * callers who wait for something never hold up those who prepare and commit.
   * @default no long poll: the settings' attemptTimeoutMs
   */
  longPollMs?: number;
  /** @default true; false where a repeat would do something twice */
  repeatable?: boolean;
  /**
   * Says of an answer that its broker can't serve now. It is returned all the same, and the address
   * is left: calls begin at the others until it has rested. @default every answer serves
   */
  unserved?(answer: T): { retryAfterMs: number } | undefined;
  /**
   * The request stands for several, one of which may be what an address fails over. When each has
   * answered as one does that may not like what it got, the call ends, and is not repeated whole.
   * @default false
   */
  isShared?: boolean;
}

export interface BrokerHttp {
  /**
   * @throws {EscrowError} the broker's own refusal, or BROKER_UNREACHABLE with the last failure as its
   *   cause; of a shared request also INTERNAL_ERROR
   */
  call<T>(request: BrokerRequest<T>, timeoutMs: number): Promise<T>;
  /**
   * The error for a call whose time is over, with the last failed attempt as its cause, and the
   * `retryAfterSeconds` that it was answered in `details`.
   */
  unreachable(timeoutMs: number): EscrowError;
  /** Whether there is an address that has not just failed, so that a repeat need not wait. */
  mayAskElsewhere(): boolean;
  close(): Promise<void>;
}

/** An attempt that settled nothing. */
interface Failure {
  error: unknown;
  retryAfterMs: number;
  /** Answered in a way that may be due to what was sent. */
  mayBeOfContent?: boolean;
}

type Attempt<T> = { answer: T } | { refusal: EscrowError } | { failure: Failure };

/** A transaction's view holds its whole history; what is longer comes from no broker. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
/** Each long poll holds a connection; what comes on top waits for one, as long as its own limit. */
const LONG_POLLS_MAX = 256;
/** Enough of an unexpected answer to see what sent it. */
const EXCERPT_CHARS = 200;

export function createBrokerHttp(settings: ProducerSettings): BrokerHttp {
  const addresses = settings.brokerOrigins.map((origin) => {
    const open = (connections: number) =>
      new Pool(origin, {
        connections,
        maxResponseSize: ANSWER_BYTES_MAX,
        connect: { timeout: settings.attemptTimeoutMs },
      });
    return { calls: open(settings.connectionsPerBrokerMax), longPolls: open(LONG_POLLS_MAX) };
  });
  const headers: Record<string, string> = {
    accept: 'application/json',
    [CLIENT_HEADER]: clientOf('escrowmq-producer'),
  };
  if (settings.apiKey !== undefined) headers.authorization = `Bearer ${settings.apiKey}`;
  const bodyHeaders = { ...headers, 'content-type': 'application/json' };
  /** What all calls know of the addresses; a call's own repeats are counted in the call. */
  const standing: Resting[] = addresses.map(() => ({ failures: 0, until: 0 }));
  let preferred = 0;
  let lastFailure: Failure | undefined;
  let isClosed = false;

  function unreachable(timeoutMs: number): EscrowError {
    const tried = settings.brokerOrigins.join(', ');
    const { error, retryAfterMs = 0 } = lastFailure ?? {};
    const said = error instanceof Error ? `; the last failure: ${error.message}` : '';
    return new EscrowError(
      'BROKER_UNREACHABLE',
      `no broker address gave an answer within ${timeoutMs} ms (${tried})${said}`,
      {
        cause: error,
        details: retryAfterMs > 0 ? { retryAfterSeconds: retryAfterMs / 1000 } : {},
      },
    );
  }

  async function attempt<T>(
    pool: Pool,
    request: BrokerRequest<T>,
    limitMs: number,
  ): Promise<Attempt<T>> {
    try {
      const { method, path, body = null } = request;
      const sent = { method, path, body, headers: body === null ? headers : bodyHeaders };
      const answer = await exchange(pool, sent, limitMs);
      const retryAfterMs = parseRetryAfter(answer.headers['retry-after']);
      return interpret(request, answer.status, { text: answer.text, retryAfterMs });
    } catch (error) {
      return { failure: { error, retryAfterMs: 0 } };
    }
  }

  const isResting = ({ until }: Resting) => until > performance.now();

  /** Calls that begin now, and repeats that need not wait, go elsewhere where there is an elsewhere. */
  function leave(index: number, retryAfterMs: number): void {
    const stands = standing[index] as Resting;
    // What was under way together fails together, and counts once.
    if (isResting(stands)) return;
    rest(stands, retryAfterMs);
    if (preferred === index) preferred = soonest(standing, index);
  }

  /** An answer that was on its way brings nobody back to an address that was left meanwhile. */
  function prefer(index: number): void {
    const stands = standing[index] as Resting;
    if (isResting(stands)) return;
    stands.failures = 0;
    preferred = index;
  }

  function begin(): number {
    const stands = standing[preferred] as Resting;
    return isResting(stands) ? soonest(standing, preferred) : preferred;
  }

  async function call<T>(request: BrokerRequest<T>, timeoutMs: number): Promise<T> {
    const deadline = new Deadline(timeoutMs);
    const limitMs = request.longPollMs ?? settings.attemptTimeoutMs;
    const resting = addresses.map(() => ({ failures: 0, until: 0 }));
    const disliked = new Set<number>();
    for (let index = begin(); ; index = soonest(resting, index)) {
      const { calls, longPolls } = addresses[index] as (typeof addresses)[number];
      const pool = request.longPollMs === undefined ? calls : longPolls;
      const rests = resting[index] as Resting;
      if (!(await deadline.pause(Math.max(0, rests.until - performance.now())))) break;
      const attempted = await attempt(pool, request, Math.min(limitMs, deadline.leftMs));
      if ('answer' in attempted) {
        const unserved = request.unserved?.(attempted.answer);
        if (unserved === undefined) prefer(index);
        else leave(index, unserved.retryAfterMs);
        return attempted.answer;
      }
      if ('refusal' in attempted) throw attempted.refusal;
      const { failure } = attempted;
      lastFailure = failure;
      // A proxy that cuts long polls says nothing about other calls.
      if (request.longPollMs === undefined && !failure.mayBeOfContent) {
        leave(index, failure.retryAfterMs);
      }
      if (request.isShared === true && failure.mayBeOfContent) {
        disliked.add(index);
        if (disliked.size === addresses.length) throw dislikedWhole(failure);
      }
      if (request.repeatable === false || isClosed) break;
      rest(rests, failure.retryAfterMs);
    }
    throw unreachable(timeoutMs);
  }

  return {
    call,
    unreachable,
    mayAskElsewhere: () => addresses.length > 1 && !standing.every(isResting),
    async close() {
      isClosed = true;
      await Promise.all(
        addresses.flatMap(({ calls, longPolls }) => [calls.destroy(), longPolls.destroy()]),
      );
    },
  };
}

interface Resting {
  failures: number;
  /** Monotonic milliseconds before which the address is not asked again. */
  until: number;
}

function rest(resting: Resting, retryAfterMs: number): void {
  resting.failures += 1;
  resting.until = performance.now() + pauseBeforeRepeatMs(resting.failures, retryAfterMs);
}

/** Of whoever stands on the way as well: a proxy has limits and rules of its own. */
const STATUS_OF_CONTENT: ReadonlySet<number> = new Set([400, 403, 413, 422, 500]);

function dislikedWhole({ error }: Failure): EscrowError {
  const said = error instanceof Error ? error.message : String(error);
  return new EscrowError('INTERNAL_ERROR', `no broker address took the whole of it: ${said}`, {
    cause: error,
  });
}

/** The address that may be asked first; of several, the next one after `last`. */
function soonest(resting: Resting[], last: number): number {
  let best = (last + 1) % resting.length;
  for (let step = 2; step <= resting.length; step += 1) {
    const index = (last + step) % resting.length;
    if ((resting[index]?.until ?? 0) < (resting[best]?.until ?? 0)) best = index;
  }
  return best;
}

function interpret<T>(
  request: BrokerRequest<T>,
  status: number,
  { text, retryAfterMs }: { text: string; retryAfterMs: number },
): Attempt<T> {
  const value = parseJson(text);
  if (status >= 200 && status < 300) return { answer: request.read(value) };
  const problem = Problem.safeParse(value);
  if (!problem.success) {
    // A proxy, a wrong port, a page of HTML: whatever its status says, no broker refused anything.
    const said = `not a broker's answer: ${status} ${text.slice(0, EXCERPT_CHARS)}`;
    if (status === 413 && request.isShared !== true) {
      const bytes = Buffer.byteLength(request.body ?? '');
      const message = `something on the way to the broker takes no ${bytes} bytes; ${said}`;
      return { refusal: new EscrowError('BODY_TOO_LARGE', message) };
    }
    const mayBeOfContent = STATUS_OF_CONTENT.has(status);
    return { failure: { error: new Error(said), retryAfterMs, mayBeOfContent } };
  }
  const error = refusalFrom(problem.data);
  if (!problem.data.retryable && status < 500) return { refusal: error };
  return { failure: { error, retryAfterMs, mayBeOfContent: STATUS_OF_CONTENT.has(status) } };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: `undefined` fits no schema, so the caller sees an answer that no broker gives.
    return undefined;
  }
}

/** `Retry-After` in seconds or as a date, in milliseconds from now; 0 when there is none. */
function parseRetryAfter(value: string | string[] | undefined): number {
  if (typeof value !== 'string') return 0;
  const seconds = Number(value);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const at = Date.parse(value);
  return Number.isNaN(at) ? 0 : Math.max(0, at - Date.now());
}
