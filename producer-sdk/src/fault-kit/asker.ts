import { randomUUID } from 'node:crypto';
import { within } from '@escrowmq/database';
import { CheckAnswer, type CheckRequest } from '@escrowmq/protocol';
import { Webhook } from 'standardwebhooks';
import { request } from 'undici';
import type { KitTransaction } from './kit-broker.js';

/**
 * Answers to headers, with names in lower case, and the raw body of a check. A `CheckHandler` of the
 * SDK fits.
 */
export type CheckFunction = (
  headers: Record<string, string>,
  rawBody: string,
) => Promise<{
  /** The HTTP status that the endpoint would answer with. */
  status: number;
  /** The body that it would answer with. */
  body: string;
  /** Its headers, which the kit does not look at. @default none */
  headers?: Record<string, string>;
}>;

/** What a check brought: an answer, or `none` for whatever the broker does not take for one. */
export type Answer =
  | {
      /** What the broker would take it for. */
      decision: 'commit' | 'rollback' | 'unknown';
    }
  | {
      /** What the broker would take it for. */
      decision: 'none';
      /** Why it is no answer. */
      why: string;
      /** The HTTP status; absent where there was no answer at all. */
      status?: number;
    };

/** How a check differs from the one that the broker would send. */
export interface Forgery {
  /** `undefined`: without the three headers. @default the group's */
  secret?: string | undefined;
  /** When it claims to have been signed. @default now */
  signedAt?: Date;
  /** The group that it names. @default the group of the producer under test */
  producerGroup?: string;
  /** Instead of the check, and signed. @default the broker's own */
  body?: string;
}

export interface Asker {
  /** Never rejects. */
  ask(transaction: KitTransaction, forgery?: Forgery): Promise<Answer>;
}

/** The broker's default for one answer; later ones count for nothing. */
const ANSWER_TIMEOUT_MS = 3_000;

export function createAsker(options: {
  check: string | CheckFunction;
  producerGroup: string;
  signingSecret: string;
}): Asker {
  const { check } = options;
  const call = typeof check === 'string' ? httpCheck(check) : check;
  const attempts = new Map<string, number>();

  function bodyOf({ id, businessKeys, checkContext, preparedAt }: KitTransaction, group: string) {
    const attempt = (attempts.get(id) ?? 0) + 1;
    attempts.set(id, attempt);
    const context = checkContext === undefined ? {} : { checkContext };
    const asked: CheckRequest = {
      id,
      producerGroup: group,
      ...context,
      businessKeys,
      preparedAt,
      attempt,
    };
    return JSON.stringify(asked);
  }

  return {
    async ask(transaction, forgery = {}) {
      const { signedAt = new Date(), producerGroup = options.producerGroup } = forgery;
      const body = forgery.body ?? bodyOf(transaction, producerGroup);
      const secret = 'secret' in forgery ? forgery.secret : options.signingSecret;
      const headers = {
        'content-type': 'application/json',
        ...(secret === undefined ? {} : signatureHeaders({ secret, signedAt, body })),
      };
      try {
        const answered = await within(call(headers, body), ANSWER_TIMEOUT_MS, {
          error: () => new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`),
        });
        return read(transaction, answered);
      } catch (error) {
        return { decision: 'none', why: error instanceof Error ? error.message : String(error) };
      }
    },
  };
}

function signatureHeaders(signed: { secret: string; signedAt: Date; body: string }) {
  const id = `check_${randomUUID()}`;
  return {
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(signed.signedAt.getTime() / 1000)),
    'webhook-signature': new Webhook(signed.secret).sign(id, signed.signedAt, signed.body),
  };
}

function httpCheck(url: string): CheckFunction {
  return async (headers, body) => {
    const answered = await request(url, {
      method: 'POST',
      headers,
      body,
      headersTimeout: ANSWER_TIMEOUT_MS,
      bodyTimeout: ANSWER_TIMEOUT_MS,
    });
    const contentType = String(answered.headers['content-type'] ?? 'none');
    const text = await answered.body.text();
    return { status: answered.statusCode, body: text, headers: { 'content-type': contentType } };
  };
}

/** Only what the broker takes for an answer is one. */
function read(transaction: KitTransaction, answered: Awaited<ReturnType<CheckFunction>>): Answer {
  const { status, body, headers = {} } = answered;
  const none = (why: string): Answer => ({ decision: 'none', why, status });
  if (status !== 200) return none(`status ${status}`);
  const type = headers['content-type'] ?? 'application/json';
  if (!/^application\/json\s*(;|$)/i.test(type)) return none(`a body of the type ${type}`);
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return none('a body that is not JSON');
  }
  const parsed = CheckAnswer.safeParse(value);
  if (!parsed.success) return none('a body that is not exactly {"id","decision"}');
  const { id, decision, messageData = [] } = parsed.data;
  if (id !== transaction.id) return none(`an answer for another id (${id})`);
  if (decision === 'commit' && messageData.length < transaction.messagesOpen) {
    return none('a commit without the data that prepare left open');
  }
  return { decision };
}
