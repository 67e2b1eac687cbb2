import { Deadline } from '@escrowmq/database';
import { LIMITS } from '@escrowmq/protocol';
import { parseLimit } from '../options.js';
import type { BrokerHttp } from './broker-http.js';

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
 * Waits at the broker for as long as is asked, by any number of long polls.
 *
 * @param waitMs milliseconds, at least 1
 * @param requestTimeoutMs for one call, repeats included, where that is longer than the poll
 * @throws {EscrowError} INVALID_CONFIGURATION for a `waitMs` that is none; what the broker refused
 */
export async function waitFor<T>(
  http: BrokerHttp,
  awaited: Awaited<T>,
  { waitMs, requestTimeoutMs }: { waitMs: number; requestTimeoutMs: number },
): Promise<T> {
  const { path, read, mayChange } = awaited;
  const deadline = new Deadline(parseLimit('waitMs', waitMs));
  for (;;) {
    const pollMs = Math.min(LIMITS.waitMsMax, Math.ceil(deadline.leftMs));
    const limitMs = pollMs + LONG_POLL_SLACK_MS;
    const answer = await http.call(
      { method: 'GET', path: `${path}?waitMs=${pollMs}`, read, longPollMs: limitMs },
      Math.max(limitMs, requestTimeoutMs),
    );
    if (!mayChange(answer) || !(await deadline.pause(POLL_PAUSE_MS))) return answer;
  }
}
