import { Deadline } from '@escrowmq/database';
import { isEscrowError, LIMITS } from '@escrowmq/protocol';
import { pauseBeforeRepeatMs } from '../back-off.js';
import { parseLimit } from '../options.js';
import { retryAfterMsOf } from './batch-results.js';
import type { BrokerHttp } from './broker-http.js';
import { createPollLength, type PollLength } from './poll-length.js';

/** A long poll is answered a little after its wait: the broker reads the state once more. */
const LONG_POLL_SLACK_MS = 2_000;
/** Between polls that came back early, so that a broker which can't wait is not flooded. */
const POLL_PAUSE_MS = 200;

export interface Awaited<T> {
  path: string;
  /** Reads the parsed JSON of an answer; throws when it is not what a broker answers. */
  read(value: unknown): T;
  /** Whether waiting on makes sense after that answer. */
  mayChange(answer: T): boolean;
}

/**
 * Waits at the broker for as long as is asked, by any number of long polls. One that fails is no
 * answer to the question whether the broker can be reached: a proxy on the way may cut what lasts.
 * So then the state is asked for by a quick call, with its repeats at every address, and the wait
 * goes on by shorter polls.
 *
 * @param waitMs milliseconds, at least 1
 * @param requestTimeoutMs for one quick call, repeats included
 * @throws {EscrowError} INVALID_CONFIGURATION for a `waitMs` that is none; what the broker refused;
 *   BROKER_UNREACHABLE when not even a quick call was answered
 */
export async function waitFor<T>(
  http: BrokerHttp,
  awaited: Awaited<T>,
  { waitMs, requestTimeoutMs }: { waitMs: number; requestTimeoutMs: number },
): Promise<T> {
  const { path, read, mayChange } = awaited;
  const deadline = new Deadline(parseLimit('waitMs', waitMs));
  const length = createPollLength(LIMITS.waitMsMax);
  for (let failures = 0; ; ) {
    const pollMs = length.next(deadline.leftMs);
    const polled = await poll(http, { path, read, pollMs }, length);
    // However the polls fail, it is never asked more often than by a back-off.
    failures = 'answer' in polled ? 0 : failures + 1;
    const answer =
      'answer' in polled
        ? polled.answer
        : await http.call({ method: 'GET', path, read }, requestTimeoutMs);
    if (!mayChange(answer)) return answer;
    const pauseMs =
      'answer' in polled ? POLL_PAUSE_MS : pauseBeforeRepeatMs(failures, polled.retryAfterMs);
    if (!(await deadline.pause(Math.max(POLL_PAUSE_MS, pauseMs)))) return answer;
  }
}

/** One attempt at one address; refused for good, it throws. */
async function poll<T>(
  http: BrokerHttp,
  { path, read, pollMs }: { path: string; read(value: unknown): T; pollMs: number },
  length: PollLength,
): Promise<{ answer: T } | { retryAfterMs: number }> {
  const longPollMs = pollMs + LONG_POLL_SLACK_MS;
  const startedAt = performance.now();
  try {
    const request = { method: 'GET', path: `${path}?waitMs=${pollMs}`, read } as const;
    const answer = await http.call({ ...request, longPollMs, repeatable: false }, longPollMs);
    length.succeeded();
    return { answer };
  } catch (error) {
    if (!isEscrowError(error) || error.code !== 'BROKER_UNREACHABLE') throw error;
    length.failed(pollMs, performance.now() - startedAt);
    return { retryAfterMs: retryAfterMsOf(error) };
  }
}
