import { z } from 'zod';
import type { HttpDeps } from './deps.js';
import type { Route } from './route.js';

const Liveness = z.object({ alive: z.literal(true) }).meta({ id: 'Liveness' });

const Readiness = z
  .object({
    ready: z.boolean(),
    degraded: z.boolean().describe('Accepts, but can not forward now'),
    checks: z.record(z.string(), z.string()).describe('What each part says of itself'),
  })
  .meta({ id: 'Readiness' });

/** Liveness, readiness and metrics: for probes, which hold no key. */
export function operationsRoutes(deps: Pick<HttpDeps, 'readiness' | 'metrics'>): Route[] {
  return [
    {
      method: 'GET',
      url: '/livez',
      access: 'open',
      operationId: 'liveness',
      summary: 'Is the process alive',
      description: 'Answers without asking the store or RabbitMQ.',
      answers: { 200: { description: 'Alive', schema: Liveness } },
      problems: [],
      async handle() {
        return { body: { alive: true } };
      },
    },
    {
      method: 'GET',
      url: '/readyz',
      access: 'open',
      operationId: 'readiness',
      summary: 'May traffic come here',
      description:
        'Not ready without the store, before its migrations, and during shutdown. Without RabbitMQ the broker goes on accepting: ready, and degraded.',
      answers: {
        200: { description: 'Ready', schema: Readiness },
        503: { description: 'Not ready', schema: Readiness },
      },
      problems: [],
      async handle() {
        const readiness = await deps.readiness();
        return { status: readiness.ready ? 200 : 503, body: readiness };
      },
    },
    {
      method: 'GET',
      url: '/metrics',
      access: 'open',
      operationId: 'metrics',
      summary: 'Metrics for Prometheus',
      description: 'Counts and times; no ids, keys or bodies.',
      answers: { 200: { description: 'In the text format', schema: 'text/plain' } },
      problems: ['STORE_UNAVAILABLE'],
      async handle() {
        const { contentType, body } = await deps.metrics();
        return { body, contentType };
      },
    },
  ];
}
