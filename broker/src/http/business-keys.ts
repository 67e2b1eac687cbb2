import { BusinessKey, BusinessKeyAnswer, BusinessKeyQuery, parse } from '@escrowmq/protocol';
import { z } from 'zod';
import { groupOf } from './api-keys.js';
import type { HttpDeps } from './deps.js';
import type { Route } from './route.js';

/** What is still unsettled on a caller's own id, now or after a wait. */
export function businessKeyRoutes(deps: Pick<HttpDeps, 'waitForBusinessKey'>): Route[] {
  return [
    {
      method: 'GET',
      url: '/v1/business-keys/:key',
      access: ['producer', 'operator'],
      operationId: 'waitForBusinessKey',
      summary: 'Find or await the unsettled transactions on a business key',
      description:
        'Answers at once, or with waitMs as soon as everything on the key has settled. A producer key sees its own group only.',
      params: z.object({ key: BusinessKey }),
      query: BusinessKeyQuery,
      answers: { 200: { description: 'What has not settled', schema: BusinessKeyAnswer } },
      problems: ['INVALID_NAME', 'BROKER_BUSY', 'STORE_UNAVAILABLE'],
      async handle(call) {
        const key = parse(BusinessKey, call.params.key, 'the business key in the path');
        const { waitMs } = parse(BusinessKeyQuery, call.query, 'the query');
        const group = groupOf(call.caller);
        return { body: await deps.waitForBusinessKey(key, waitMs, group, call.untilGone()) };
      },
    },
  ];
}
