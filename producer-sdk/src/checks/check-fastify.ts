import type { IncomingMessage } from 'node:http';
import { CHECK } from './callback-handler.js';
import type { CheckHandler } from './check-handler.js';
import {
  answerMounted,
  type CallbackMount,
  type CheckMountOptions,
  OF_FASTIFY,
  parseMount,
  readStream,
} from './check-mount.js';
import type { CallbackHeaders } from './check-signature.js';

/** As much of a Fastify instance as the plugin uses, so that others need not install Fastify. */
export interface FastifyScope {
  /** Forgets the parsers of the scope. */
  removeAllContentTypeParsers(): void;
  /** Adds a parser to the scope. */
  addContentTypeParser(
    contentType: string,
    parser: (
      request: unknown,
      payload: IncomingMessage,
      done: (error: Error | null, body?: unknown) => void,
    ) => void,
  ): unknown;
  /** Adds a route to the scope. */
  post(
    path: string,
    handler: (request: FastifyCheckRequest, reply: FastifyCheckReply) => Promise<unknown>,
  ): unknown;
}

/** As much of a Fastify request as the plugin uses. */
export interface FastifyCheckRequest {
  /** The HTTP method. */
  method: string;
  /** Names in lower case. */
  headers: CallbackHeaders;
  /** What the scope's parser made. */
  body: unknown;
}

/** As much of a Fastify reply as the plugin uses. */
export interface FastifyCheckReply {
  /** Sets the status. */
  code(status: number): unknown;
  /** Sets a header. */
  header(name: string, value: string): unknown;
  /** Sends the answer. */
  send(body: string): unknown;
}

/** Options of `fastifyCheckPlugin`. */
export interface FastifyCheckOptions extends CheckMountOptions {
  /** The handler that `createCheckHandler` made. */
  check: CheckHandler;
  /** The path that is served. @default '/escrow-check', behind the `prefix` given to `register` */
  path?: string;
}

const PATH = '/escrow-check';

/**
 * Serves a check handler with Fastify 4 or 5, as `POST` on one path. In its own scope, where no
 * body parser of the application takes the raw body first; the application's other routes keep theirs.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * await app.register(fastifyCheckPlugin, { check, path: '/escrow-check' });
 */
export async function fastifyCheckPlugin(
  scope: FastifyScope,
  options: FastifyCheckOptions,
): Promise<void> {
  const mount = parseMount(CHECK, options?.check, options, {
    where: 'fastifyCheckPlugin',
    others: ['check', 'path', ...OF_FASTIFY],
  });
  servePath(scope, mount, options.path ?? PATH);
}

export function servePath(scope: FastifyScope, mount: CallbackMount, path: string): void {
  scope.removeAllContentTypeParsers();
  // The handler reads the stream itself, within its own limits.
  scope.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  scope.post(path, async (request, reply) => {
    const { answer, isBodyRead } = await answerMounted(mount, {
      method: request.method,
      headers: request.headers,
      readRawBody: async () =>
        // Without a content type and a length there is no body, and no parser was asked.
        request.body === undefined ? '' : readStream(request.body as IncomingMessage, mount.kind),
    });
    if (!isBodyRead) reply.header('connection', 'close');
    reply.code(answer.status);
    for (const [name, value] of Object.entries(answer.headers)) reply.header(name, value);
    return reply.send(answer.body);
  });
}
