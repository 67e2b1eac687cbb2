import { COMPENSATION } from '../checks/callback-handler.js';
import { type FastifyScope, servePath } from '../checks/check-fastify.js';
import { fetchListener } from '../checks/check-fetch.js';
import { type CheckMountOptions, OF_FASTIFY, parseMount } from '../checks/check-mount.js';
import { type NodeCheckListener, nodeListener } from '../checks/check-node.js';
import type { CompensationHandler } from './compensation-handler.js';

/*
 * Every way to serve a compensation handler: the same as for a check handler, with the same options
 * and under the same conditions.
 */

const mounted = (
  compensation: CompensationHandler,
  options: CheckMountOptions = {},
  about: { where: string; others?: readonly string[] },
) => parseMount(COMPENSATION, compensation, options, about);

/**
 * Serves a compensation handler with node:http, as `nodeCheckListener` does a check handler.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * http.createServer(nodeCompensationListener(compensation)).listen(8080, '127.0.0.1');
 */
export function nodeCompensationListener(
  compensation: CompensationHandler,
  options?: CheckMountOptions,
): NodeCheckListener {
  return nodeListener(mounted(compensation, options, { where: 'nodeCompensationListener' }));
}

/**
 * Serves a compensation handler with Express, as `expressCheckHandler` does a check handler.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * app.post('/escrow-compensation', expressCompensationHandler(compensation));
 * app.use(express.json());
 */
export function expressCompensationHandler(
  compensation: CompensationHandler,
  options?: CheckMountOptions,
): NodeCheckListener {
  return nodeListener(mounted(compensation, options, { where: 'expressCompensationHandler' }));
}

/**
 * Serves a compensation handler with Nest, as `nestCheckMiddleware` does a check handler.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * app.use('/escrow-compensation', nestCompensationMiddleware(compensation));
 */
export function nestCompensationMiddleware(
  compensation: CompensationHandler,
  options?: CheckMountOptions,
): NodeCheckListener {
  return nodeListener(mounted(compensation, options, { where: 'nestCompensationMiddleware' }));
}

/**
 * Serves a compensation handler wherever a route takes a `Request` and returns a `Response`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * // Next: app/escrow-compensation/route.ts
 * export const POST = fetchCompensationHandler(compensation);
 */
export function fetchCompensationHandler(
  compensation: CompensationHandler,
  options?: CheckMountOptions,
): (request: Request) => Promise<Response> {
  return fetchListener(mounted(compensation, options, { where: 'fetchCompensationHandler' }));
}

/** Options of `fastifyCompensationPlugin`. */
export interface FastifyCompensationOptions extends CheckMountOptions {
  /** The handler that `createCompensationHandler` made. */
  compensation: CompensationHandler;
  /**
   * The path that is served.
   * @default '/escrow-compensation', behind the `prefix` given to `register`
   */
  path?: string;
}

const PATH = '/escrow-compensation';

/**
 * Serves a compensation handler with Fastify, as `fastifyCheckPlugin` does a check handler.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * await app.register(fastifyCompensationPlugin, { compensation });
 */
export async function fastifyCompensationPlugin(
  scope: FastifyScope,
  options: FastifyCompensationOptions,
): Promise<void> {
  const mount = mounted(options?.compensation, options, {
    where: 'fastifyCompensationPlugin',
    others: ['compensation', 'path', ...OF_FASTIFY],
  });
  servePath(scope, mount, options.path ?? PATH);
}
