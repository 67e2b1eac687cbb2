import {
  type CheckAnswer,
  CheckRequest,
  EscrowError,
  isEscrowError,
  PROBLEM_CONTENT_TYPE,
  ProducerGroupName,
  parse,
  toProblem,
} from '@escrowmq/protocol';
import type { Pool } from 'mysql2/promise';
import { Webhook } from 'standardwebhooks';
import { BARRIER_RETENTION_MS, BARRIER_RETENTION_SLACK_MS } from './barrier.js';
import { decideOutcome, type Outcome } from './decide-outcome.js';
import { consoleLogger, type Logger } from './logger.js';
import { parseLimit } from './options.js';

/**
 * Answers the broker's checks: verifies the signature, finds the database that holds the barrier,
 * and has the outcome decided there. It answers 200 only with a decision or with `unknown`, which
 * means "ask again". Whatever else goes wrong is a status that the broker counts as no answer, so
 * that a mistake here decides nothing.
 */
export interface CheckHandlerOptions {
  /** The group's `whsec_…` secret; several while one is being rotated. */
  signingSecret: string | string[];
  /** The one database of this producer; for transactions that name none. */
  database?: Pool;
  /** Databases by the name given as `database` in `transaction`. */
  databases?: Record<string, Pool>;
  /** Refuses checks of any other group. @default any group whose secret it is */
  producerGroup?: string;
  /**
   * How long barrier rows are kept, in milliseconds. A check for a transaction prepared longer ago
   * than this, less a day, inserts nothing and answers unknown. @default 7 days
   */
  barrierRetentionMs?: number;
  /** Limit for one answer, in milliseconds. @default 2500: below the 3000 that the broker waits */
  answerTimeoutMs?: number;
  /** @default the console */
  logger?: Logger;
}

export interface CheckResponse {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/**
 * Takes the request's headers (names in lower case, as Node gives them) and its raw body: the
 * signature covers the bytes, so a body that was parsed and written anew does not verify.
 */
export type CheckHandler = (
  headers: Record<string, string | string[] | undefined>,
  rawBody: string | Buffer,
) => Promise<CheckResponse>;

/**
 * The most that a check holds: 16 business keys of 128 characters, a context of 1 KiB, an id and a
 * group, in JSON that escapes every character: some 14 KiB.
 */
export const CHECK_BODY_BYTES_MAX = 32 * 1024;

const ANSWER_TIMEOUT_MS = 2_500;

/**
 * @throws {EscrowError} INVALID_CONFIGURATION: no or a malformed secret, no database, or both kinds
 * @example
 * const check = createCheckHandler({ signingSecret: process.env.CHECK_SECRET, database: pool });
 * http.createServer(nodeCheckListener(check)).listen(8080);
 */
export function createCheckHandler(options: CheckHandlerOptions): CheckHandler {
  const webhooks = parseSecrets(options.signingSecret);
  const poolOf = parseDatabases(options);
  const producerGroup =
    options.producerGroup === undefined
      ? undefined
      : parse(ProducerGroupName, options.producerGroup, 'producerGroup');
  const answerTimeoutMs = parseLimit(
    'answerTimeoutMs',
    options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS,
  );
  const ageMsMax = parseRetention(options.barrierRetentionMs ?? BARRIER_RETENTION_MS);
  const logger = options.logger ?? consoleLogger;

  async function decide(check: CheckRequest): Promise<Outcome> {
    if (Date.now() - check.preparedAt > ageMsMax) {
      return { decision: 'unknown', reason: 'prepared longer ago than barrier rows are kept' };
    }
    const pool = poolOf(check.checkContext);
    if (pool === undefined) {
      return {
        decision: 'unknown',
        reason: `no database for context ${check.checkContext ?? '(none)'}`,
      };
    }
    return decideOutcome(pool, check.id, answerTimeoutMs);
  }

  return async (headers, rawBody) => {
    try {
      const check = readCheck({ webhooks, producerGroup, headers, rawBody });
      const outcome = await decide(check);
      if (outcome.decision === 'unknown') {
        const { reason, cause } = outcome;
        const fields = { transactionId: check.id, attempt: check.attempt, reason, error: cause };
        logger.warn(fields, 'a check was answered unknown');
      }
      const answer: CheckAnswer = { id: check.id, decision: outcome.decision };
      return response(200, 'application/json', answer);
    } catch (error) {
      if (!isEscrowError(error)) throw error;
      return response(error.status, PROBLEM_CONTENT_TYPE, toProblem(error));
    }
  };
}

function response(status: number, contentType: string, body: unknown): CheckResponse {
  return { status, headers: { 'content-type': contentType }, body: JSON.stringify(body) };
}

interface Incoming {
  webhooks: Webhook[];
  producerGroup: string | undefined;
  headers: Parameters<CheckHandler>[0];
  rawBody: string | Buffer;
}

/** @throws {EscrowError} BODY_TOO_LARGE, INVALID_SIGNATURE, INVALID_JSON, a field's code, PRODUCER_GROUP_NOT_FOUND */
function readCheck({ webhooks, producerGroup, headers, rawBody }: Incoming): CheckRequest {
  if (Buffer.byteLength(rawBody) > CHECK_BODY_BYTES_MAX) {
    throw new EscrowError('BODY_TOO_LARGE', `a check has at most ${CHECK_BODY_BYTES_MAX} bytes`);
  }
  verifySignature(webhooks, headers, rawBody);
  const check = parse(CheckRequest, parseJson(rawBody), 'the check');
  if (producerGroup !== undefined && check.producerGroup !== producerGroup) {
    throw new EscrowError(
      'PRODUCER_GROUP_NOT_FOUND',
      `this endpoint answers for ${producerGroup}, not for ${check.producerGroup} (transaction ${check.id})`,
    );
  }
  return check;
}

/** Any of the secrets will do; the signed time may be five minutes off (standardwebhooks). */
function verifySignature(
  webhooks: Webhook[],
  headers: Incoming['headers'],
  rawBody: string | Buffer,
): void {
  const signed: Record<string, string> = {};
  for (const name of ['webhook-id', 'webhook-timestamp', 'webhook-signature']) {
    const value = headers[name];
    if (typeof value === 'string') signed[name] = value;
  }
  let cause: unknown;
  for (const webhook of webhooks) {
    try {
      webhook.verify(rawBody, signed, { jsonParse: false });
      return;
    } catch (error) {
      cause = error;
    }
  }
  const said = cause instanceof Error ? cause.message : 'no secret';
  throw new EscrowError('INVALID_SIGNATURE', `the check is not signed as it must be: ${said}`, {
    cause,
  });
}

function parseJson(rawBody: string | Buffer): unknown {
  try {
    return JSON.parse(rawBody.toString());
  } catch (cause) {
    throw new EscrowError('INVALID_JSON', 'the body of the check is not JSON', { cause });
  }
}

function parseSecrets(signingSecret: string | string[]): Webhook[] {
  const secrets = [signingSecret].flat();
  if (secrets.length === 0) {
    throw new EscrowError('INVALID_CONFIGURATION', 'signingSecret needs at least one secret');
  }
  return secrets.map((secret, index) => {
    try {
      return new Webhook(secret);
    } catch (cause) {
      throw new EscrowError(
        'INVALID_CONFIGURATION',
        `signingSecret ${index + 1} is not whsec_ and base64`,
        { cause },
      );
    }
  });
}

function parseDatabases(
  options: CheckHandlerOptions,
): (context: string | undefined) => Pool | undefined {
  const { database, databases } = options;
  if ((database === undefined) === (databases === undefined)) {
    throw new EscrowError('INVALID_CONFIGURATION', 'give either database or databases');
  }
  // A context that nobody here knows names another database: its barrier is not in this one.
  if (databases === undefined) return (context) => (context === undefined ? database : undefined);
  const byName = new Map(Object.entries(databases));
  return (context) => (context === undefined ? undefined : byName.get(context));
}

function parseRetention(barrierRetentionMs: number): number {
  const ageMsMax = barrierRetentionMs - BARRIER_RETENTION_SLACK_MS;
  if (ageMsMax > 0) return ageMsMax;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `barrierRetentionMs is ${barrierRetentionMs}; it must be more than a day`,
  );
}
