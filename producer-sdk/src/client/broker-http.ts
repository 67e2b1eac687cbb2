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
}

export interface BrokerHttp {
  /** @throws {EscrowError} the broker's own refusal, or BROKER_UNREACHABLE with the last failure as its cause */
  call<T>(request: BrokerRequest<T>, timeoutMs: number): Promise<T>;
  /**
   * The error for a call whose time is over, with the last failed attempt as its cause, and the
   * `retryAfterSeconds` that it was answered in `details`.
   */
  unreachable(timeoutMs: number): EscrowError;
  close(): Promise<void>;
}

/** An attempt that settled nothing. */
interface Failure {
  error: unknown;
  retryAfterMs: number;
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

  async function call<T>(request: BrokerRequest<T>, timeoutMs: number): Promise<T> {
    const deadline = new Deadline(timeoutMs);
    const limitMs = request.longPollMs ?? settings.attemptTimeoutMs;
    const resting = addresses.map(() => ({ failures: 0, until: 0 }));
    for (let index = preferred; ; index = soonest(resting, index)) {
      const { calls, longPolls } = addresses[index] as (typeof addresses)[number];
      const pool = request.longPollMs === undefined ? calls : longPolls;
      const rest = resting[index] as Resting;
      if (!(await deadline.pause(Math.max(0, rest.until - performance.now())))) break;
      const attempted = await attempt(pool, request, Math.min(limitMs, deadline.leftMs));
      if ('answer' in attempted) {
        preferred = index;
        return attempted.answer;
      }
      if ('refusal' in attempted) throw attempted.refusal;
      lastFailure = attempted.failure;
      if (request.repeatable === false || isClosed) break;
      rest.failures += 1;
      rest.until =
        performance.now() + pauseBeforeRepeatMs(rest.failures, attempted.failure.retryAfterMs);
    }
    throw unreachable(timeoutMs);
  }

  return {
    call,
    unreachable,
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
    const error = new Error(`not a broker's answer: ${status} ${text.slice(0, EXCERPT_CHARS)}`);
    return { failure: { error, retryAfterMs } };
  }
  const error = refusalFrom(problem.data);
  if (!problem.data.retryable && status < 500) return { refusal: error };
  return { failure: { error, retryAfterMs } };
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
