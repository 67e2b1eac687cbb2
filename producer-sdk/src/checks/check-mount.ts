import type { IncomingMessage } from 'node:http';
import { within } from '@escrowmq/database';
import { EscrowError, isEscrowError } from '@escrowmq/protocol';
import { consoleLogger, type Logger } from '../logger.js';
import { parseLimit } from '../options.js';
import {
  bodyTooLarge,
  CHECK_BODY_BYTES_MAX,
  type CheckHandler,
  type CheckResponse,
  problemResponse,
} from './check-handler.js';
import type { CheckHeaders } from './check-signature.js';

/*
 * What every way to mount a check handler has in common: only a POST is a check, its raw body is
 * read up to a limit of bytes and of time, and whatever keeps the body from being read is a problem
 * document. The ways differ in where the body comes from and how the answer is written.
 */
export interface CheckMountOptions {
  /** Limit for reading one body, in milliseconds. @default 2000: a check is a few KiB */
  bodyTimeoutMs?: number;
  /** @default the console */
  logger?: Logger;
}

/** The options as parsed. */
export interface CheckMount {
  check: CheckHandler;
  bodyTimeoutMs: number;
  logger: Logger;
}

const BODY_TIMEOUT_MS = 2_000;

/** @throws {EscrowError} INVALID_CONFIGURATION */
export function parseMount(check: CheckHandler, options: CheckMountOptions): CheckMount {
  return {
    check,
    bodyTimeoutMs: parseLimit('bodyTimeoutMs', options.bodyTimeoutMs ?? BODY_TIMEOUT_MS),
    logger: options.logger ?? consoleLogger,
  };
}

export interface MountedRequest {
  method: string | undefined;
  headers: CheckHeaders;
  /** Called once, for a POST. May reject with an EscrowError, which becomes the answer. */
  readRawBody(): Promise<string | Uint8Array>;
}

/**
 * @returns the answer; `isBodyRead` is false when the rest of the body is still to come, so that
 *   the connection can't serve another request
 * @throws what reading the body threw, when the connection is lost
 */
export async function answerMounted(
  { check, bodyTimeoutMs, logger }: CheckMount,
  request: MountedRequest,
): Promise<{ answer: CheckResponse; isBodyRead: boolean }> {
  try {
    if (request.method !== 'POST') {
      throw new EscrowError('ROUTE_NOT_FOUND', `a check is a POST, not a ${request.method}`);
    }
    const rawBody = await within(request.readRawBody(), bodyTimeoutMs, {
      error: () => new EscrowError('REQUEST_TIMEOUT', 'the body of the check took too long'),
    });
    return { answer: await check(request.headers, rawBody), isBodyRead: true };
  } catch (error) {
    if (!isEscrowError(error)) throw error;
    if (error.status >= 500) logger.error({ error }, error.message);
    return { answer: problemResponse(error), isBodyRead: false };
  }
}

/** By events and not by `for await`, which closes the socket when it is left early. */
export function readStream(stream: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= CHECK_BODY_BYTES_MAX) chunks.push(chunk);
      // Reading goes on, into nothing: a sender whose bytes are refused unread may never see why.
      else reject(bodyTooLarge());
    });
    stream.on('end', () => resolve(Buffer.concat(chunks)));
    stream.on('error', reject);
  });
}
