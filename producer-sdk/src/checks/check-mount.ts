import type { IncomingMessage } from 'node:http';
import { within } from '@escrowmq/database';
import {
  EscrowError,
  isEscrowError,
  optionNames,
  refuseUnknown,
  requireFunction,
} from '@escrowmq/protocol';
import { type Logger, loggerOf } from '../logger.js';
import { parseLimit } from '../options.js';
import {
  bodyTooLarge,
  CALLBACK_BODY_BYTES_MAX,
  type CallbackHandler,
  type CallbackKind,
  type CallbackResponse,
  problemResponse,
} from './callback-handler.js';
import type { CallbackHeaders } from './check-signature.js';

/*
 * What every way to mount a handler of the broker's calls has in common: only a POST is one, its raw body is
 * read up to a limit of bytes and of time, and whatever keeps the body from being read is a problem
 * document. The ways differ in where the body comes from and how the answer is written.
 */
/** How a handler is served. */
export interface CheckMountOptions {
  /** Limit for reading one body, in milliseconds. @default 2000: a call is a few KiB */
  bodyTimeoutMs?: number;
  /** Is told what went wrong while a call was read or answered. @default stderr, bounded */
  logger?: Logger;
}

/** The options as parsed. */
export interface CallbackMount {
  kind: CallbackKind;
  handler: CallbackHandler;
  bodyTimeoutMs: number;
  logger: Logger;
}

const MOUNT_OPTIONS = optionNames<CheckMountOptions>({ bodyTimeoutMs: true, logger: true });

/** What Fastify itself is told with `register`, and passes on. */
export const OF_FASTIFY = ['prefix', 'logLevel', 'logSerializers'] as const;

const BODY_TIMEOUT_MS = 2_000;

/**
 * @param where takes the options, for the error, and what else it takes
 * @throws {EscrowError} INVALID_CONFIGURATION, UNKNOWN_FIELD
 */
export function parseMount(
  kind: CallbackKind,
  handler: CallbackHandler,
  options: CheckMountOptions,
  { where, others = [] }: { where: string; others?: readonly string[] },
): CallbackMount {
  requireFunction(handler, `${kind.name} handler`, where);
  refuseUnknown(options, [...MOUNT_OPTIONS, ...others], where);
  return {
    kind,
    handler,
    bodyTimeoutMs: parseLimit('bodyTimeoutMs', options.bodyTimeoutMs ?? BODY_TIMEOUT_MS),
    logger: loggerOf(options.logger),
  };
}

export interface MountedRequest {
  method: string | undefined;
  headers: CallbackHeaders;
  /** Called once, for a POST. May reject with an EscrowError, which becomes the answer. */
  readRawBody(): Promise<string | Uint8Array>;
}

/**
 * @returns the answer; `isBodyRead` is false when the rest of the body is still to come, so that
 *   the connection can't serve another request
 * @throws what reading the body threw, when the connection is lost
 */
export async function answerMounted(
  { kind, handler, bodyTimeoutMs, logger }: CallbackMount,
  request: MountedRequest,
): Promise<{ answer: CallbackResponse; isBodyRead: boolean }> {
  try {
    if (request.method !== 'POST') {
      throw new EscrowError('ROUTE_NOT_FOUND', `a ${kind.name} is a POST, not a ${request.method}`);
    }
    const rawBody = await within(request.readRawBody(), bodyTimeoutMs, {
      error: () => new EscrowError('REQUEST_TIMEOUT', `the body of the ${kind.name} took too long`),
    });
    return { answer: await handler(request.headers, rawBody), isBodyRead: true };
  } catch (error) {
    if (!isEscrowError(error)) throw error;
    if (error.status >= 500) logger.error({ error }, error.message);
    return { answer: problemResponse(error), isBodyRead: false };
  }
}

/** By events and not by `for await`, which closes the socket when it is left early. */
export function readStream(stream: IncomingMessage, kind: CallbackKind): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= CALLBACK_BODY_BYTES_MAX) chunks.push(chunk);
      // Reading goes on, into nothing: a sender whose bytes are refused unread may never see why.
      else reject(bodyTooLarge(kind));
    });
    stream.on('end', () => resolve(Buffer.concat(chunks)));
    stream.on('error', reject);
  });
}
