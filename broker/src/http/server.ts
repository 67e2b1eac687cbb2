import { isUtf8 } from 'node:buffer';
import { EscrowError, LIMITS } from '@escrowmq/protocol';
import fastify, { type FastifyInstance } from 'fastify';
import type { ApiKey } from './api-keys.js';
import { batchRoutes } from './batch.js';
import { businessKeyRoutes } from './business-keys.js';
import { checkRoutes } from './checks.js';
import {
  CONNECTION_LIMITS,
  type ConnectionLimits,
  HEADER_BYTES_MAX,
  PARAM_CHARS_MAX,
  trackConnections,
} from './connections.js';
import type { HttpDeps } from './deps.js';
import { describeApi, openApiRoute } from './openapi.js';
import { operationsRoutes } from './operations.js';
import { answerClientError, answerError, type ReportFailure } from './problems.js';
import { producerGroupRoutes } from './producer-groups.js';
import { addRoutes, notFound } from './register.js';
import type { Route } from './route.js';
import { createShutdown } from './shutdown.js';
import { transactionRoutes } from './transactions.js';
import { webhookRoutes } from './webhooks.js';

export interface HttpOptions {
  /** None: everybody who reaches the broker may do everything. */
  apiKeys: readonly ApiKey[];
  /** One transaction as a request body. @default LIMITS.transactionBytesMax */
  transactionBytesMax?: number;
  /** One batch as a request body. @default LIMITS.batchBytesMax */
  batchBytesMax?: number;
  /** Why nothing but the open routes is served now, if so. @default all are served */
  closedBecause?: () => EscrowError | undefined;
  /** @default CONNECTION_LIMITS */
  connections?: Partial<ConnectionLimits>;
}

/**
 * The HTTP side of the broker, for `listenOn`. It translates and authorises and decides
 * nothing. `close()` stops accepting, refuses new requests on old connections with
 * `SHUTTING_DOWN`, ends waits, answers what is in flight, and resolves when all is answered.
 *
 * @example
 * const server = createHttpServer(deps, { apiKeys: [] });
 * await listenOn(server, { host: '127.0.0.1', port: 7171 });
 */
export function createHttpServer(deps: HttpDeps, options: HttpOptions): FastifyInstance {
  const transactionBytesMax = options.transactionBytesMax ?? LIMITS.transactionBytesMax;
  const batchBytesMax = options.batchBytesMax ?? LIMITS.batchBytesMax;
  const report: ReportFailure = (what, error) => deps.observer.failed(what, error);
  const connections = { ...CONNECTION_LIMITS, ...options.connections };
  const server = listener(connections, transactionBytesMax, report);
  const routes: Route[] = [
    ...transactionRoutes(deps),
    ...batchRoutes(deps, { transactionBytesMax, batchBytesMax }),
    ...producerGroupRoutes(deps),
    ...checkRoutes(deps, { bodyBytesMax: batchBytesMax }),
    ...businessKeyRoutes(deps),
    ...webhookRoutes(deps),
    ...operationsRoutes(deps),
    openApiRoute(server),
  ];
  const shutdown = createShutdown();
  const open = trackConnections(server.server, connections.connectionsMax);
  server.addHook('preClose', (done) => {
    shutdown.begin();
    open.endUnanswerable(connections.shutdownGraceMs);
    done();
  });
  server.addHook('onClose', (_instance, done) => {
    open.closed();
    done();
  });
  parseJsonOnly(server);
  server.setErrorHandler((error, request, reply) =>
    answerError(error, { request, reply, report, last: shutdown.begun }),
  );
  server.setNotFoundHandler((request) => {
    throw notFound(request, routes);
  });
  describeApi(server, routes);
  const { apiKeys, closedBecause = () => undefined } = options;
  addRoutes(server, { routes, apiKeys, shutdown, closedBecause });
  return server;
}

function listener(
  connections: ConnectionLimits,
  bodyLimit: number,
  report: ReportFailure,
): FastifyInstance {
  const server = fastify({
    bodyLimit,
    requestTimeout: connections.requestTimeoutMs,
    keepAliveTimeout: connections.keepAliveTimeoutMs,
    http: {
      headersTimeout: connections.headersTimeoutMs,
      connectionsCheckingInterval: connections.timeoutsCheckedEveryMs,
      maxHeaderSize: HEADER_BYTES_MAX,
    },
    routerOptions: { maxParamLength: PARAM_CHARS_MAX },
    // Fastify's own answer would be no problem document; ours comes from a hook.
    return503OnClosing: false,
    // Idle keep-alive connections end at once; busy ones when they have been answered.
    forceCloseConnections: 'idle',
    frameworkErrors: (error, request, reply) => {
      void answerError(error, { request, reply, report, last: false });
    },
    clientErrorHandler: (error, socket) => answerClientError(error, socket),
  });
  server.server.maxConnections = connections.connectionsMax;
  return server;
}

/**
 * JSON is the only body there is. Bytes that are not UTF-8 are refused: decoded with replacement
 * characters they would be stored as something that nobody sent. There are no rules on keys here, by
 * which one operation of a batch would have all of them refused: whoever parses a part has them.
 */
function parseJsonOnly(server: FastifyInstance): void {
  server.removeAllContentTypeParsers();
  server.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    (_request, body: Buffer, done) => {
      // A verdict has no body, but many clients send the content type with everything.
      if (body.length === 0) return done(null, undefined);
      if (!isUtf8(body)) {
        return done(new EscrowError('INVALID_JSON', 'the body is not UTF-8'));
      }
      try {
        done(null, JSON.parse(withoutMark(body.toString())));
      } catch (error) {
        const message = `the body is not JSON: ${String(error)}`;
        done(new EscrowError('INVALID_JSON', message, { cause: error }));
      }
    },
  );
}

/** Some writers put a byte order mark in front. */
const withoutMark = (text: string): string => (text.startsWith('\uFEFF') ? text.slice(1) : text);
