import type { IncomingMessage, ServerResponse } from 'node:http';
import { EscrowError } from '@escrowmq/protocol';
import { type CallbackKind, CHECK } from './callback-handler.js';
import type { CheckHandler } from './check-handler.js';
import {
  answerMounted,
  type CallbackMount,
  type CheckMountOptions,
  parseMount,
  readStream,
} from './check-mount.js';

/** A request of node:http, with what a framework may have put on it before we see it. */
export type CheckIncomingMessage = IncomingMessage & {
  /** What a body parser made of the body. @default none has run */
  body?: unknown;
  /** The bytes that a body parser kept. @default none were kept */
  rawBody?: unknown;
};

/** Fits `http.createServer`, Express, Nest and whatever else builds on node:http. */
export type NodeCheckListener = (request: CheckIncomingMessage, response: ServerResponse) => void;

/**
 * Serves a check handler with node:http: reads the raw body up to its limit and writes the answer.
 * It answers whatever path it is given; send it only the requests of the check URL.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * http.createServer(nodeCheckListener(check)).listen(8080, '127.0.0.1');
 */
export function nodeCheckListener(
  check: CheckHandler,
  options: CheckMountOptions = {},
): NodeCheckListener {
  return nodeListener(parseMount(CHECK, check, options, { where: 'nodeCheckListener' }));
}

/**
 * Serves a check handler with Express 4 or 5, before or after `express.raw()`, and before
 * `express.json()`. After `express.json()` only with the bytes that it keeps:
 * `express.json({ verify: (req, _res, bytes) => { req.rawBody = bytes; } })`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * app.post('/escrow-check', expressCheckHandler(check));
 * app.use(express.json());
 */
export function expressCheckHandler(
  check: CheckHandler,
  options: CheckMountOptions = {},
): NodeCheckListener {
  return nodeListener(parseMount(CHECK, check, options, { where: 'expressCheckHandler' }));
}

/**
 * Serves a check handler with Nest, on Express and on Fastify alike. As a middleware it stands
 * before body parsers, guards, interceptors and the global prefix, so none of them keeps the broker
 * out. Give it to `app.use` before `app.listen` or `app.init`; behind those it needs
 * `NestFactory.create(App, { rawBody: true })`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * const app = await NestFactory.create(AppModule);
 * app.use('/escrow-check', nestCheckMiddleware(createCheckHandler({ signingSecret, database: app.get(POOL) })));
 * await app.listen(8080);
 */
export function nestCheckMiddleware(
  check: CheckHandler,
  options: CheckMountOptions = {},
): NodeCheckListener {
  return nodeListener(parseMount(CHECK, check, options, { where: 'nestCheckMiddleware' }));
}

export function nodeListener(mount: CallbackMount): NodeCheckListener {
  return (request, response) => {
    respond(mount, request, response).catch((error: unknown) => {
      mount.logger.error({ error }, `a ${mount.kind.name} could not be answered`);
      response.destroy();
    });
  };
}

async function respond(
  mount: CallbackMount,
  request: CheckIncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { answer, isBodyRead } = await answerMounted(mount, {
    method: request.method,
    headers: request.headers,
    readRawBody: () => readRawBody(request, mount.kind),
  });
  if (!isBodyRead) {
    response.setHeader('connection', 'close');
    request.resume();
  }
  response.writeHead(answer.status, answer.headers).end(answer.body);
}

/** @throws {EscrowError} `notAnswered` when others have read the stream and kept no bytes; BODY_TOO_LARGE */
async function readRawBody(
  request: CheckIncomingMessage,
  kind: CallbackKind,
): Promise<string | Uint8Array> {
  const kept = [request.rawBody, request.body].find(
    (body) => typeof body === 'string' || body instanceof Uint8Array,
  );
  if (kept !== undefined) return kept;
  if (!request.readableDidRead) return readStream(request, kind);
  throw new EscrowError(
    kind.notAnswered,
    `a body parser took the body of the ${kind.name}, and the signature covers its raw bytes: mount the ${kind.name} handler before the parser, or keep the bytes as request.rawBody (express.json: its option \`verify\`; Nest: \`rawBody: true\`)`,
  );
}
