import type { Dispatcher } from 'undici';
import { request as send } from 'undici';
import type { Webhook } from '../domain/webhook.js';
import { type Outcome, outcomeOf } from './outcome.js';
import { type Notified, requestHeaders } from './request-headers.js';

/*
 * One signed POST of one message to one endpoint. Its time is limited, connecting included, and it
 * never rejects: whatever goes wrong is an outcome. The rules for URLs are asked here, before every
 * call, and by the agent at every connection.
 */

/** What the calls are made with; parts of the folder that asks producers. */
export interface PostParts {
  /** Every connection of it obeys the rules for URLs. */
  agent: Dispatcher;
  /** Why this URL may not be called; undefined when it may. */
  urlProblem(url: string): string | undefined;
  /** The Standard Webhooks headers, with a signature for each secret. */
  sign(
    message: { id: string; at: Date; body: Buffer },
    secrets: readonly string[],
  ): Record<string, string>;
  /** A failed connection in words; undefined for an error that no network makes. */
  describeFailure(error: unknown): string | undefined;
  /** Told of an error that no network makes, such as a damaged secret. */
  failed(what: string, error: unknown): void;
  /** UTC milliseconds of this machine: receivers compare it with their own. */
  wallClock(): number;
}

/** More of an answer than this is not worth reading for the sake of its connection. */
const ANSWER_BYTES_MAX = 64 * 1024;

export interface Post {
  webhook: Webhook;
  message: Notified & { body: Buffer };
  /** Ends the call: the message comes again. */
  signal: AbortSignal;
}

export async function post({ webhook, message, signal }: Post, parts: PostParts): Promise<Outcome> {
  const { url, timeoutMs } = webhook.settings;
  const problem = parts.urlProblem(url);
  if (problem !== undefined) return { kind: 'failed', detail: `call not allowed: ${problem}` };
  const timeUp = AbortSignal.timeout(timeoutMs);
  const ended = AbortSignal.any([signal, timeUp]);
  try {
    const at = new Date(parts.wallClock());
    const { id, body } = message;
    const called = call({
      url,
      body,
      headers: {
        ...requestHeaders(message),
        ...parts.sign({ id, at, body }, webhook.signingSecrets),
      },
      signal: ended,
      agent: parts.agent,
    });
    // Measured: undici heeds the signal only once it is connected. Alone, a host that drops packets
    // would hold the call for as long as connecting may take.
    const answer = await Promise.race([called, rejectOnAbort(ended)]);
    return outcomeOf(answer, parts.wallClock());
  } catch (error) {
    if (timeUp.aborted) return { kind: 'failed', detail: `timed out after ${timeoutMs} ms` };
    if (signal.aborted) return { kind: 'failed', detail: 'the delivery was ended' };
    const detail = parts.describeFailure(error);
    if (detail !== undefined) return { kind: 'failed', detail };
    parts.failed(`calling the webhook ${webhook.name}`, error);
    return { kind: 'failed', detail: 'the broker could not make the call; its log says why' };
  }
}

interface Call {
  url: string;
  body: Buffer;
  headers: Record<string, string>;
  signal: AbortSignal;
  agent: Dispatcher;
}

async function call({ url, body, headers, signal, agent }: Call) {
  const response = await send(url, { method: 'POST', dispatcher: agent, signal, headers, body });
  // The status is the whole answer: a body that does not end takes nothing back.
  response.body.dump({ limit: ANSWER_BYTES_MAX, signal }).catch(() => undefined);
  const retryAfter = response.headers['retry-after'];
  return {
    status: response.statusCode,
    retryAfter: Array.isArray(retryAfter) ? retryAfter[0] : retryAfter,
  };
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
