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
  /**
   * UTC milliseconds of the store's clock: the time that is signed. Receivers refuse one that is
   * more than five minutes off their own clock, and this machine's may be, unnoticed. Theirs is not
   * known here; the store's is the better guess.
   */
  storeNow(): number;
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
  if (problem !== undefined) return failed(`call not allowed: ${problem}`);
  const limit = limitOf(timeoutMs, signal);
  try {
    const at = new Date(parts.storeNow());
    const { id, body } = message;
    const called = call({
      url,
      body,
      headers: {
        ...requestHeaders(message),
        ...parts.sign({ id, at, body }, webhook.signingSecrets),
      },
      signal: limit.signal,
      agent: parts.agent,
    });
    // Measured: undici heeds the signal only once it is connected. Alone, a host that drops packets
    // would hold the call for as long as connecting may take.
    const answer = await Promise.race([called, rejectOnAbort(limit.signal)]);
    void answer.read.finally(limit.clear);
    return outcomeOf(answer, parts.storeNow());
  } catch (error) {
    limit.clear();
    // What the signal gave as its reason is the result; anything else is a failed call.
    if (limit.signal.aborted) return failed(limit.signal.reason as string);
    const detail = parts.describeFailure(error);
    if (detail !== undefined) return failed(detail);
    parts.failed(`calling the webhook ${webhook.name}`, error);
    return failed('the broker could not make the call; its log says why');
  }
}

const failed = (detail: string): Outcome => ({ kind: 'failed', detail });

/**
 * Aborts with a text when the time is over or the delivery ends. To be cleared: thousands of calls a
 * second would otherwise leave a timer each.
 */
function limitOf(timeoutMs: number, delivery: AbortSignal) {
  const controller = new AbortController();
  const end = () => controller.abort('the delivery was ended');
  const timer = setTimeout(() => controller.abort(`timed out after ${timeoutMs} ms`), timeoutMs);
  delivery.addEventListener('abort', end, { once: true });
  if (delivery.aborted) end();
  return {
    signal: controller.signal,
    clear() {
      clearTimeout(timer);
      delivery.removeEventListener('abort', end);
    },
  };
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
  const retryAfter = response.headers['retry-after'];
  return {
    status: response.statusCode,
    retryAfter: Array.isArray(retryAfter) ? retryAfter[0] : retryAfter,
    // Resolves when the connection is free or gone. The status is the whole answer: a body that
    // does not end takes nothing back.
    read: response.body.dump({ limit: ANSWER_BYTES_MAX, signal }).catch(() => undefined),
  };
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
