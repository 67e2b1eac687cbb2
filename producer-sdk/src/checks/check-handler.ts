import { Deadline } from '@escrowmq/database';
import {
  CheckRequest,
  EscrowError,
  isEscrowError,
  PROBLEM_CONTENT_TYPE,
  ProducerGroupName,
  parse,
  toProblem,
} from '@escrowmq/protocol';
import { type CheckDecisionOptions, createCheckDecider } from './check-decider.js';
import {
  type CheckHeaders,
  createSecrets,
  type SigningSecretSource,
  verifySignature,
} from './check-signature.js';

/**
 * Answers the broker's checks: verifies the signature and decides. It answers 200 only with a
 * decision or with `unknown`, which means "ask again". Whatever else goes wrong is a status that
 * the broker counts as no answer, so that a mistake here decides nothing.
 */
export interface CheckHandlerOptions extends CheckDecisionOptions {
  /**
   * The group's `whsec_…` secret; several while one is being rotated. Or a function that gives
   * them, so that a rotation needs no restart: what it gave is used for 30 s, so it costs one call
   * in 30 s while checks come in, and none otherwise. It counts toward `answerTimeoutMs`. When it
   * fails, the check is not answered, and the broker asks again.
   */
  signingSecret: SigningSecretSource;
  /** Refuses checks of any other group. @default any group whose secret it is */
  producerGroup?: string;
}

export interface CheckResponse {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/**
 * Takes the request's headers (names in lower case, as Node gives them) and its raw body: the
 * signature covers the bytes, so a body that was parsed and written anew does not verify. Never
 * rejects.
 */
export type CheckHandler = (
  headers: CheckHeaders,
  rawBody: string | Uint8Array,
) => Promise<CheckResponse>;

/**
 * The most that a check holds: 16 business keys of 128 characters, a context of 1 KiB, an id and a
 * group, in JSON that escapes every character: some 14 KiB.
 */
export const CHECK_BODY_BYTES_MAX = 32 * 1024;

/**
 * @throws {EscrowError} INVALID_CONFIGURATION: no or a malformed secret, no database, or both kinds
 * @example
 * const check = createCheckHandler({ signingSecret: process.env.CHECK_SECRET, database: pool });
 * http.createServer(nodeCheckListener(check)).listen(8080);
 */
export function createCheckHandler(options: CheckHandlerOptions): CheckHandler {
  const secrets = createSecrets(options.signingSecret);
  const producerGroup =
    options.producerGroup === undefined
      ? undefined
      : parse(ProducerGroupName, options.producerGroup, 'producerGroup');
  const { decide, answerTimeoutMs, logger } = createCheckDecider(options);

  return async (headers, rawBody) => {
    const deadline = new Deadline(answerTimeoutMs);
    try {
      const text = textOf(rawBody);
      await verifySignature(secrets, { headers, text }, deadline.leftMs);
      const answer = await decide(parseCheck(text, producerGroup), deadline.leftMs);
      return response(200, 'application/json', answer);
    } catch (error) {
      const refusal = isEscrowError(error)
        ? error
        : new EscrowError('CHECK_NOT_ANSWERED', 'the check failed; the log says why', {
            cause: error,
          });
      if (refusal.status >= 500) logger.error({ error: refusal }, 'a check could not be answered');
      return problemResponse(refusal);
    }
  };
}

export function problemResponse(error: EscrowError): CheckResponse {
  return response(error.status, PROBLEM_CONTENT_TYPE, toProblem(error));
}

function response(status: number, contentType: string, body: unknown): CheckResponse {
  return { status, headers: { 'content-type': contentType }, body: JSON.stringify(body) };
}

export function bodyTooLarge(): EscrowError {
  return new EscrowError('BODY_TOO_LARGE', `a check has at most ${CHECK_BODY_BYTES_MAX} bytes`);
}

/**
 * A byte order mark is part of what was signed; what is no UTF-8 reads as something else than what
 * was signed, and verifies nowhere.
 */
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** @throws {EscrowError} BODY_TOO_LARGE */
function textOf(rawBody: string | Uint8Array): string {
  const bytes = typeof rawBody === 'string' ? Buffer.byteLength(rawBody) : rawBody.byteLength;
  if (bytes > CHECK_BODY_BYTES_MAX) throw bodyTooLarge();
  return typeof rawBody === 'string' ? rawBody : utf8.decode(rawBody);
}

/** @throws {EscrowError} INVALID_JSON, the code of the field that is wrong, PRODUCER_GROUP_NOT_FOUND */
function parseCheck(text: string, producerGroup: string | undefined): CheckRequest {
  const check = parse(CheckRequest, parseJson(text), 'the check');
  if (producerGroup !== undefined && check.producerGroup !== producerGroup) {
    throw new EscrowError(
      'PRODUCER_GROUP_NOT_FOUND',
      `this endpoint answers for ${producerGroup}, not for ${check.producerGroup} (transaction ${check.id})`,
    );
  }
  return check;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new EscrowError('INVALID_JSON', 'the body of the check is not JSON', { cause });
  }
}
