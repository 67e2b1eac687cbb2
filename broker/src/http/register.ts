import { EscrowError } from '@escrowmq/protocol';
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import { type Access, type ApiKey, type Caller, identify, requireRole } from './api-keys.js';
import { schemaOf } from './openapi.js';
import { GUARD_HEADERS, inWordsOf } from './problems.js';
import type { Route } from './route.js';
import { ClientGone, type Shutdown, shuttingDown } from './shutdown.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Absent until the key is checked, and on open routes. */
    caller: Caller | undefined;
  }
  interface FastifyContextConfig {
    /** Every route has a rule; one without does not register. */
    access?: Access;
  }
}

interface Registration {
  routes: readonly Route[];
  apiKeys: readonly ApiKey[];
  shutdown: Shutdown;
  /** Why nothing but the open routes is served now, if so. */
  closedBecause(): EscrowError | undefined;
}

/** Who calls an open route: somebody without any rights. */
const NOBODY: Caller = { role: 'producer', name: 'nobody', group: '' };

/** The methods of the routes on a path, for who used the wrong one. */
function methodsOf(routes: readonly Route[], path: string): string[] {
  const parts = path.split('/');
  return routes
    .filter(({ url }) => {
      const pattern = url.split('/');
      return (
        pattern.length === parts.length &&
        pattern.every((part, index) => part.startsWith(':') || part === parts[index])
      );
    })
    .map((route) => route.method);
}

/** Says what would have been there. */
export function notFound(request: FastifyRequest, routes: readonly Route[]): EscrowError {
  const path = request.url.split('?')[0] ?? '/';
  const methods = methodsOf(routes, path);
  const legal =
    methods.length === 0 ? 'GET /openapi.json lists the routes' : `it takes ${methods.join(', ')}`;
  return new EscrowError('ROUTE_NOT_FOUND', `there is no ${request.method} ${path}; ${legal}`);
}

export function addRoutes(server: FastifyInstance, registration: Registration): void {
  const { routes, apiKeys, shutdown, closedBecause } = registration;
  server.decorateRequest('caller', undefined);
  server.addHook('onRoute', (route) => {
    if (route.config?.access !== undefined) return;
    if (!route.url.startsWith('/docs')) {
      throw new Error(`${String(route.method)} ${route.url} has no rule of access`);
    }
    // Pages of the API description, registered by a plugin; they tell what openapi.json tells.
    route.config = { ...route.config, access: 'open' };
  });
  server.addHook('onRequest', (request, reply, done) => {
    // The pages of the API description are static and may be kept.
    if (!request.url.startsWith('/docs')) reply.headers(GUARD_HEADERS);
    try {
      if (shutdown.begun) throw shuttingDown();
      // Before the body is read: whether it is JSON does not matter where nobody takes it.
      if (request.is404) throw notFound(request, routes);
      authorise(request, apiKeys);
      const closed = closedBecause();
      if (closed !== undefined && request.routeOptions.config.access !== 'open') throw closed;
      done();
    } catch (error) {
      done(error as Error);
    }
  });
  // In a plugin of their own: these must come after the plugin that collects their descriptions.
  void server.register((scope, _options, done) => {
    for (const route of routes) addRoute(scope, route, shutdown);
    done();
  });
}

function authorise(request: FastifyRequest, apiKeys: readonly ApiKey[]): void {
  const { access } = request.routeOptions.config;
  // No rule means no route: the answer is 404, with or without a key.
  if (access === undefined || access === 'open') return;
  const caller = identify(request.headers.authorization, apiKeys);
  request.caller = caller;
  requireRole(caller, access, `${request.method} ${request.routeOptions.url}`);
}

function addRoute(server: FastifyInstance, route: Route, shutdown: Shutdown): void {
  server.route({
    method: route.method as HTTPMethods,
    url: route.url,
    config: { access: route.access },
    schema: schemaOf(route),
    ...(route.bodyBytesMax === undefined ? {} : { bodyLimit: route.bodyBytesMax }),
    // The schemas only describe: handlers parse, so that every refusal has its code from one
    // table, and answers are built by us and need no second look.
    validatorCompiler: () => () => true,
    serializerCompiler: () => JSON.stringify,
    handler: (request, reply) => answer(route, { request, reply, shutdown }),
  });
}

async function answer(
  route: Route,
  {
    request,
    reply,
    shutdown,
  }: { request: FastifyRequest; reply: FastifyReply; shutdown: Shutdown },
): Promise<unknown> {
  try {
    const { status, body, contentType } = await route.handle({
      params: request.params as Record<string, string>,
      query: request.query,
      body: request.body,
      headers: request.headers,
      caller: request.caller ?? NOBODY,
      untilGone: () => shutdown.untilGone(reply.raw),
    });
    // An answer that was in flight when the shutdown began is the last on its connection.
    if (shutdown.begun) reply.header('connection', 'close');
    if (status !== undefined) reply.code(status);
    if (contentType === undefined) return inWordsOf(request, body);
    reply.header('content-type', contentType);
    return body;
  } catch (error) {
    // Nobody is there to answer, and hanging up is no failure.
    if (error instanceof ClientGone) return reply.hijack();
    throw error;
  }
}
