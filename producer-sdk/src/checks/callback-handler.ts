import { Deadline } from '@escrowmq/database';
import {
  type ErrorCode,
  EscrowError,
  isEscrowError,
  optionNames,
  PROBLEM_CONTENT_TYPE,
  ProducerGroupName,
  parse,
  toProblem,
} from '@escrowmq/protocol';
import type { z } from 'zod';
import type { Logger } from '../logger.js';
import {
  type CallbackHeaders,
  createSecrets,
  type SigningSecretSource,
  verifySignature,
} from './check-signature.js';

/*
 * What the broker's calls to a producer have in common, checks and compensations: a body of JSON
 * whose raw bytes are signed, a limit of time, and one answer that counts. Whatever else goes wrong
 * is a status that the broker counts as no answer, so that a mistake here decides nothing.
 */

/** One of the broker's calls. */
export interface CallbackKind {
  /** As it stands in messages. */
  name: 'check' | 'compensation';
  /** For one that could not be answered. */
  notAnswered: ErrorCode;
}

export const CHECK: CallbackKind = { name: 'check', notAnswered: 'CHECK_NOT_ANSWERED' };
export const COMPENSATION: CallbackKind = {
  name: 'compensation',
  notAnswered: 'COMPENSATION_NOT_DONE',
};

/** Whose calls are answered. */
export interface CallbackOptions {
  /**
   * The group's `whsec_…` secret; several while one is being rotated. Or a function that gives
   * them, so that a rotation needs no restart: what it gave is used for 30 s, so it costs one call
   * in 30 s while the broker calls, and none otherwise. It counts toward `answerTimeoutMs`. When it
   * fails, nothing is answered, and the broker asks again.
   */
  signingSecret: SigningSecretSource;
  /** Refuses calls for any other group. @default any group whose secret it is */
  producerGroup?: string;
}

export const CALLBACK_OPTIONS = optionNames<CallbackOptions>({
  signingSecret: true,
  producerGroup: true,
});

/** What is answered to one of the broker's calls. */
export interface CallbackResponse {
  /** The HTTP status. */
  status: number;
  /** To be sent as they are. */
  headers: Record<string, string>;
  /** JSON, to be sent as it is. */
  body: string;
}

/**
 * Takes the request's headers (names in lower case, as Node gives them) and its raw body: the
 * signature covers the bytes, so a body that was parsed and written anew does not verify. Never
 * rejects.
 */
export type CallbackHandler = (
  headers: CallbackHeaders,
  rawBody: string | Uint8Array,
) => Promise<CallbackResponse>;

/**
 * The most that a call holds: 16 business keys of 128 characters, a context of 1 KiB, a cause of 500
 * characters, an id and groups, in JSON that escapes every character: some 17 KiB.
 */
export const CALLBACK_BODY_BYTES_MAX = 32 * 1024;

interface Answering<Request extends { id: string; producerGroup: string }> {
  kind: CallbackKind;
  schema: z.ZodType<Request>;
  answerTimeoutMs: number;
  logger: Logger;
  /** What is sent with 200; rejects for anything that is no answer. */
  answer(request: Request, deadline: Deadline): Promise<object>;
}

/** @throws {EscrowError} INVALID_CONFIGURATION: no or a malformed secret; INVALID_NAME */
export function createCallbackHandler<Request extends { id: string; producerGroup: string }>(
  options: CallbackOptions,
  { kind, schema, answerTimeoutMs, logger, answer }: Answering<Request>,
): CallbackHandler {
  const secrets = createSecrets(options.signingSecret, kind);
  const tellRefused = createRefusalLog(logger, kind);
  const producerGroup =
    options.producerGroup === undefined
      ? undefined
      : parse(ProducerGroupName, options.producerGroup, 'producerGroup');

  /** @throws {EscrowError} INVALID_JSON, the code of the field that is wrong, PRODUCER_GROUP_NOT_FOUND */
  function parseRequest(text: string): Request {
    const request = parse(schema, parseJson(text, kind), `the ${kind.name}`);
    if (producerGroup !== undefined && request.producerGroup !== producerGroup) {
      throw new EscrowError(
        'PRODUCER_GROUP_NOT_FOUND',
        `this endpoint answers for ${producerGroup}, not for ${request.producerGroup} (transaction ${request.id})`,
      );
    }
    return request;
  }

  return async (headers, rawBody) => {
    const deadline = new Deadline(answerTimeoutMs);
    try {
      const text = textOf(rawBody, kind);
      await verifySignature(secrets, { headers, text }, deadline.leftMs);
      return response(200, 'application/json', await answer(parseRequest(text), deadline));
    } catch (error) {
      // A code without a status is of something that happened here, and no answer over HTTP.
      const refusal =
        isEscrowError(error) && error.status > 0
          ? error
          : new EscrowError(kind.notAnswered, `the ${kind.name} failed; the log says why`, {
              cause: error,
            });
      if (refusal.status >= 500) {
        logger.error({ error: refusal }, `a ${kind.name} could not be answered`);
      } else tellRefused(refusal);
      return problemResponse(refusal);
    }
  };
}

/** Who calls has proved nothing yet, and may call as often as he likes. */
const REFUSALS_TOLD_MS = 60_000;

/**
 * Tells what was refused, each code at once and then at most once a minute with a count: a wrong secret
 * is refused here, and nobody but this service can put it right.
 */
function createRefusalLog(logger: Logger, { name }: CallbackKind): (refused: EscrowError) => void {
  const told = new Map<string, { at: number; count: number }>();
  return (error) => {
    const now = performance.now();
    const last = told.get(error.code);
    const count = (last?.count ?? 0) + 1;
    if (last !== undefined && now - last.at < REFUSALS_TOLD_MS) {
      last.count = count;
      return;
    }
    told.set(error.code, { at: now, count: 0 });
    const hint =
      error.code === 'INVALID_SIGNATURE'
        ? '; is signingSecret the one of the group, as registerGroup set or answered it?'
        : '';
    logger.warn({ code: error.code, count, error }, `a ${name} was refused${hint}`);
  };
}

export function problemResponse(error: EscrowError): CallbackResponse {
  return response(error.status, PROBLEM_CONTENT_TYPE, toProblem(error));
}

function response(status: number, contentType: string, body: unknown): CallbackResponse {
  return { status, headers: { 'content-type': contentType }, body: JSON.stringify(body) };
}

export function bodyTooLarge({ name }: CallbackKind): EscrowError {
  return new EscrowError(
    'BODY_TOO_LARGE',
    `a ${name} has at most ${CALLBACK_BODY_BYTES_MAX} bytes`,
  );
}

/**
 * A byte order mark is part of what was signed; what is no UTF-8 reads as something else than what
 * was signed, and verifies nowhere.
 */
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** @throws {EscrowError} BODY_TOO_LARGE */
function textOf(rawBody: string | Uint8Array, kind: CallbackKind): string {
  const bytes = typeof rawBody === 'string' ? Buffer.byteLength(rawBody) : rawBody.byteLength;
  if (bytes > CALLBACK_BODY_BYTES_MAX) throw bodyTooLarge(kind);
  return typeof rawBody === 'string' ? rawBody : utf8.decode(rawBody);
}

function parseJson(text: string, { name }: CallbackKind): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new EscrowError('INVALID_JSON', `the body of the ${name} is not JSON`, { cause });
  }
}
