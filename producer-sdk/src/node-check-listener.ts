import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { EscrowError, isEscrowError, PROBLEM_CONTENT_TYPE, toProblem } from '@escrowmq/protocol';
import { CHECK_BODY_BYTES_MAX, type CheckHandler } from './check-handler.js';
import { within } from './deadline.js';
import { consoleLogger, type Logger } from './logger.js';
import { parseLimit } from './options.js';

export interface NodeCheckListenerOptions {
  /** Limit for reading one body, in milliseconds. @default 2000: a check is a few KiB */
  bodyTimeoutMs?: number;
  /** @default the console */
  logger?: Logger;
}

const BODY_TIMEOUT_MS = 2_000;

/**
 * Serves a check handler with node:http: reads the raw body up to its limit and writes the answer.
 * It answers whatever path it is given; send it only the requests of the check URL.
 *
 * @example
 * http.createServer(nodeCheckListener(check)).listen(8080, '127.0.0.1');
 */
export function nodeCheckListener(
  check: CheckHandler,
  options: NodeCheckListenerOptions = {},
): RequestListener {
  const bodyTimeoutMs = parseLimit('bodyTimeoutMs', options.bodyTimeoutMs ?? BODY_TIMEOUT_MS);
  const logger = options.logger ?? consoleLogger;
  return (request, response) => {
    answer(check, { request, response, bodyTimeoutMs }).catch((error: unknown) => {
      logger.error({ error }, 'a check could not be answered');
      response.destroy();
    });
  };
}

interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  bodyTimeoutMs: number;
}

async function answer(check: CheckHandler, exchange: Exchange): Promise<void> {
  const { request, response, bodyTimeoutMs } = exchange;
  if (request.method !== 'POST') {
    request.resume();
    writeProblem(response, new EscrowError('ROUTE_NOT_FOUND', 'a check is a POST'));
    return;
  }
  let rawBody: Buffer;
  try {
    rawBody = await within(readBody(request), bodyTimeoutMs, {
      error: () => new EscrowError('INVALID_REQUEST', 'the body took too long'),
    });
  } catch (error) {
    if (!isEscrowError(error)) throw error;
    // The rest of the body is not read, so the connection can't serve another request.
    response.setHeader('connection', 'close');
    writeProblem(response, error);
    return;
  }
  const { status, headers, body } = await check(request.headers, rawBody);
  response.writeHead(status, headers).end(body);
}

function writeProblem(response: ServerResponse, error: EscrowError): void {
  response
    .writeHead(error.status, { 'content-type': PROBLEM_CONTENT_TYPE })
    .end(JSON.stringify(toProblem(error)));
}

/** By events and not by `for await`, which closes the socket when it is left early. */
function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= CHECK_BODY_BYTES_MAX) {
        chunks.push(chunk);
        return;
      }
      request.pause();
      reject(
        new EscrowError('BODY_TOO_LARGE', `a check has at most ${CHECK_BODY_BYTES_MAX} bytes`),
      );
    });
    request.on('end', () => resolve(Buffer.concat(chunks)));
    request.on('error', reject);
  });
}
