import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import {
  CLIENT_HEADER,
  EscrowError,
  forOlderCaller,
  isEscrowError,
  namesVersion,
  PROBLEM_CONTENT_TYPE,
  type Problem,
  toProblem,
} from '@escrowmq/protocol';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { drainRefusedBody } from './connections.js';

/** Seconds; a broker that is busy or without its store is worth asking again soon. */
const RETRY_AFTER_DEFAULT_SECONDS = 1;

/** Nothing of ours is to be sniffed for another type, or kept by a cache on the way. */
export const GUARD_HEADERS = { 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' };

/** Where mistakes of the broker itself are told; the caller learns only that there was one. */
export type ReportFailure = (what: string, error: unknown) => void;

const codeOf = (error: unknown): unknown =>
  typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;

/** What Fastify refuses by itself, in the codes of the protocol. */
function fromFastify(error: unknown, request: FastifyRequest): EscrowError | undefined {
  const options = { cause: error };
  switch (codeOf(error)) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE': {
      const { bodyLimit } = request.routeOptions;
      return new EscrowError('BODY_TOO_LARGE', `the body is larger than ${bodyLimit} bytes`, {
        ...options,
        details: { bytesMax: bodyLimit },
      });
    }
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new EscrowError(
        'UNSUPPORTED_MEDIA_TYPE',
        'the body must be sent with content-type application/json',
        options,
      );
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new EscrowError(
        'INVALID_REQUEST',
        'the body is not as long as its content-length',
        options,
      );
    case 'FST_ERR_BAD_URL':
      return new EscrowError('INVALID_REQUEST', 'the URL is not percent-encoded UTF-8', options);
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new EscrowError('INVALID_REQUEST', 'a part of the path is too long', options);
    default:
      return undefined;
  }
}

/**
 * Any error as one that may leave the broker. What is neither ours nor a refusal of Fastify's is a
 * mistake: it is reported in full and answered without a word about the inside.
 */
export function toEscrowError(error: unknown, what: string, report: ReportFailure): EscrowError {
  // Status 0 marks codes of the SDKs; here they could only come from a mistake.
  if (isEscrowError(error) && error.status > 0 && error.code !== 'INTERNAL_ERROR') return error;
  report(what, error);
  return new EscrowError('INTERNAL_ERROR', 'the broker made a mistake and has written it down', {
    cause: error,
  });
}

/**
 * The problem document of an error. What stands in `Retry-After` stands in it too: the result of
 * one operation in a batch has no header of its own.
 */
export function problemOf(error: EscrowError): Problem {
  const problem = toProblem(error);
  if (problem.status !== 503) return problem;
  const given = error.details.retryAfterSeconds;
  const isHint = typeof given === 'number' && given > 0;
  const retryAfterSeconds = isHint ? Math.ceil(given) : RETRY_AFTER_DEFAULT_SECONDS;
  return { ...problem, retryAfterSeconds };
}

/** An answer or a problem in the words that its caller knows. */
export const inWordsOf = <Body>(request: FastifyRequest, body: Body): Body =>
  namesVersion(request.headers[CLIENT_HEADER]) ? body : (forOlderCaller(body) as Body);

function sendProblem(
  { request, reply }: Pick<Failed, 'request' | 'reply'>,
  error: EscrowError,
): FastifyReply {
  const problem = inWordsOf(request, problemOf(error));
  const { retryAfterSeconds } = problem;
  if (retryAfterSeconds !== undefined) reply.header('retry-after', retryAfterSeconds);
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
  return (
    reply
      .code(problem.status)
      // Set here too: what Fastify refuses before it has a route passes no hook.
      .headers(GUARD_HEADERS)
      .header('content-type', PROBLEM_CONTENT_TYPE)
      .send(JSON.stringify(problem))
  );
}

interface Failed {
  request: FastifyRequest;
  reply: FastifyReply;
  report: ReportFailure;
  /** The last answer on its connection: a shutdown waits for it to close. */
  last: boolean;
}

export function answerError(error: unknown, failed: Failed): FastifyReply {
  const { request, reply, report, last } = failed;
  if (request.raw.destroyed && !request.raw.complete) {
    // The caller hung up in the middle of its body. Nobody reads this answer, and it is no
    // mistake of ours that would be worth a report.
    return sendProblem(failed, new EscrowError('INVALID_REQUEST', 'the body did not arrive whole'));
  }
  if (!request.raw.complete) {
    // Fastify would have the connection closed, under the hands of a caller who is still sending.
    reply.removeHeader('connection');
    drainRefusedBody(request.raw);
  }
  if (last) reply.header('connection', 'close');
  const what = `${request.method} ${request.routeOptions.url ?? 'an unknown route'}`;
  return sendProblem(failed, fromFastify(error, request) ?? toEscrowError(error, what, report));
}

function errorOfClient(code: unknown): EscrowError {
  switch (code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new EscrowError(
        'REQUEST_TIMEOUT',
        'the request did not arrive in time; send it again',
      );
    case 'HPE_HEADER_OVERFLOW':
      return new EscrowError('INVALID_REQUEST', 'the request line and headers are too large');
    default:
      return new EscrowError('INVALID_REQUEST', 'this is not a well-formed HTTP/1.1 request');
  }
}

/**
 * Answers what is not even HTTP, or did not arrive in time, and hangs up. There is no request
 * yet, so the answer is written to the socket by hand.
 */
export function answerClientError(error: Error, socket: Socket): void {
  const code = codeOf(error);
  if (code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const problem = toProblem(errorOfClient(code));
  const body = JSON.stringify(problem);
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\nconnection: close\r\n` +
      `content-type: ${PROBLEM_CONTENT_TYPE}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
