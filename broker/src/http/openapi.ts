import { ERRORS, type ErrorCode, PROBLEM_CONTENT_TYPE, Problem } from '@escrowmq/protocol';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance, FastifySchema } from 'fastify';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Route } from './route.js';

/*
 * The API description (OpenAPI 3.1), made from the protocol's schemas and the list of routes, so
 * that it can not say anything else than what is checked.
 */

const TraceHeaders = z.object({
  traceparent: z.string().optional().describe('W3C Trace Context; kept with the messages'),
  tracestate: z.string().optional(),
});

const API_KEY = 'apiKey';

/**
 * The plugin's own policy upgrades insecure requests, with which the page stays empty wherever the
 * broker is reached by plain http, and lets the page load from anywhere by https.
 */
const DOCS_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/** What any route can answer, by what it takes. */
function commonProblems(route: Route): ErrorCode[] {
  return [
    'INVALID_REQUEST',
    'INTERNAL_ERROR',
    'SHUTTING_DOWN',
    ...(route.access === 'open' ? [] : (['UNAUTHENTICATED', 'FORBIDDEN'] as const)),
    ...(route.body === undefined && route.query === undefined ? [] : (['UNKNOWN_FIELD'] as const)),
    ...(route.method === 'GET'
      ? []
      : (['INVALID_JSON', 'UNKNOWN_FIELD', 'BODY_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE'] as const)),
  ];
}

function problemsOf(route: Route): Map<number, ErrorCode[]> {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of new Set([...commonProblems(route), ...route.problems])) {
    const { status } = ERRORS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return byStatus;
}

function answersOf(route: Route): Record<number, object> {
  const answers: Record<number, { description: string; content: Record<string, object> }> = {};
  for (const [status, { description, schema }] of Object.entries(route.answers)) {
    const content =
      typeof schema === 'string'
        ? { [schema]: { schema: z.string() } }
        : { 'application/json': { schema } };
    answers[Number(status)] = { description, content };
  }
  for (const [status, codes] of problemsOf(route)) {
    const listed = codes.map((code) => `${code}: ${ERRORS[code].title}`).join('; ');
    const own = answers[status];
    answers[status] = {
      description: own === undefined ? listed : `${own.description}. ${listed}`,
      content: { ...own?.content, [PROBLEM_CONTENT_TYPE]: { schema: Problem } },
    };
  }
  return answers;
}

/** A route's schemas in Fastify's form. They describe and are not run. */
export function schemaOf(route: Route): FastifySchema {
  return {
    operationId: route.operationId,
    summary: route.summary,
    description: route.description,
    tags: [route.url.startsWith('/v1/') ? 'transactions' : 'operations'],
    security: route.access === 'open' ? [] : [{ [API_KEY]: [] }],
    ...(route.params === undefined ? {} : { params: route.params }),
    ...(route.query === undefined ? {} : { querystring: route.query }),
    ...(route.body === undefined ? {} : { body: route.body }),
    ...(route.keepsTrace === true ? { headers: TraceHeaders } : {}),
    response: answersOf(route),
  };
}

interface DescribedOperation {
  operationId?: string;
  requestBody?: { required?: boolean };
}

/** The part of the document that concerns us here; the plugin's types allow Swagger 2 as well. */
interface Described {
  paths?: Record<string, Record<string, DescribedOperation>>;
  components?: { schemas?: Record<string, object> };
}

/** The names of the components that something refers to, directly or through another. */
function referenced({ components, ...rest }: Described): Set<string> {
  const found = new Set<string>();
  const look = (part: object | undefined) => {
    const text = JSON.stringify(part ?? {});
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (name === undefined || found.has(name)) continue;
      found.add(name);
      look(components?.schemas?.[name]);
    }
  };
  look(rest);
  return found;
}

/** Every schema would come in an input and an output form; only what is referred to stays. */
const withUsedComponents: typeof jsonSchemaTransformObject = (input) => {
  const document = jsonSchemaTransformObject(input);
  const described = document as Described;
  const used = referenced(described);
  const schemas = Object.entries(described.components?.schemas ?? {});
  const kept = Object.fromEntries(schemas.filter(([name]) => used.has(name)));
  return { ...document, components: { ...described.components, schemas: kept } };
};

/** The plugin describes every body as required. */
function withOptionalBodies(document: Described, routes: readonly Route[]): void {
  const optional = new Set(
    routes.filter((route) => route.bodyMayBeAbsent).map(({ operationId }) => operationId),
  );
  for (const methods of Object.values(document.paths ?? {})) {
    for (const { operationId = '', requestBody } of Object.values(methods)) {
      if (requestBody !== undefined && optional.has(operationId)) requestBody.required = false;
    }
  }
}

/** Collects the descriptions of routes registered after it, and shows them at `/docs`. */
export function describeApi(server: FastifyInstance, routes: readonly Route[]): void {
  void server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'EscrowMQ',
        version: '1',
        description:
          'A transactional-message broker on RabbitMQ. Errors are RFC 9457 problem documents with a stable code.',
      },
      components: {
        securitySchemes: { [API_KEY]: { type: 'http', scheme: 'bearer' } },
      },
    },
    transform: jsonSchemaTransform,
    transformObject: (input) => {
      const document = withUsedComponents(input);
      withOptionalBodies(document as Described, routes);
      return document;
    },
  });
  void server.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: DOCS_CSP,
    // By default the page sends what it shows to a validator on the internet.
    uiConfig: { validatorUrl: null },
  });
}

/** The description itself, as one more route. */
export function openApiRoute(server: FastifyInstance): Route {
  return {
    method: 'GET',
    url: '/openapi.json',
    access: 'open',
    operationId: 'openapi',
    summary: 'This description',
    description: 'OpenAPI 3.1.',
    answers: {
      200: { description: 'OpenAPI 3.1', schema: z.record(z.string(), z.unknown()) },
    },
    problems: [],
    async handle() {
      return { body: server.swagger() };
    },
  };
}
