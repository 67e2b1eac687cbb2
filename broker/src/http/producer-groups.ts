import {
  EscrowError,
  ProducerGroupAnswer,
  ProducerGroupName,
  ProducerGroupRequest,
  parse,
} from '@escrowmq/protocol';
import { z } from 'zod';
import { requireGroup } from './api-keys.js';
import type { HttpDeps } from './deps.js';
import type { Call, Route } from './route.js';

type ProducerGroupDeps = Pick<HttpDeps, 'registerGroup' | 'findGroup'>;

const GroupParams = z.object({ group: ProducerGroupName });

function groupIn(call: Call): string {
  const group = parse(ProducerGroupName, call.params.group, 'the producer group in the path');
  requireGroup(call.caller, group);
  return group;
}

/** Registering the services that can answer for a transaction, and reading that back. */
export function producerGroupRoutes(deps: ProducerGroupDeps): Route[] {
  return [
    {
      method: 'PUT',
      url: '/v1/producer-groups/:group',
      access: ['producer', 'operator'],
      operationId: 'registerProducerGroup',
      summary: 'Register a producer group',
      description:
        'Sets the endpoints for checks and compensations and the check policy, as a whole. Without check endpoints the group polls for its checks; without compensation endpoints its compensations wait, and an alert says so. Of settings with a version the highest stand: those of a lower one change nothing, rotate nothing and are answered with what is stored. Answers the signing secret when it creates the group or is asked to rotate it, and never again.',
      params: GroupParams,
      body: ProducerGroupRequest,
      answers: {
        200: { description: 'Changed, or as it was: see applied', schema: ProducerGroupAnswer },
        201: { description: 'Created', schema: ProducerGroupAnswer },
      },
      problems: ['INVALID_NAME', 'CHECK_URL_NOT_ALLOWED', 'STORE_UNAVAILABLE'],
      async handle(call) {
        const group = groupIn(call);
        const request = parse(ProducerGroupRequest, call.body, 'the request');
        const { created, answer } = await deps.registerGroup(group, request);
        return { status: created ? 201 : 200, body: answer };
      },
    },
    {
      method: 'GET',
      url: '/v1/producer-groups/:group',
      access: ['producer', 'operator'],
      operationId: 'viewProducerGroup',
      summary: 'Look at a producer group',
      description:
        'Endpoints for checks and compensations, and the check policy; the signing secret is not shown.',
      params: GroupParams,
      answers: { 200: { description: 'The producer group', schema: ProducerGroupAnswer } },
      problems: ['INVALID_NAME', 'PRODUCER_GROUP_NOT_FOUND', 'STORE_UNAVAILABLE'],
      async handle(call) {
        const group = groupIn(call);
        const found = await deps.findGroup(group);
        if (found === undefined) {
          throw new EscrowError(
            'PRODUCER_GROUP_NOT_FOUND',
            `producer group ${group} is not registered; PUT /v1/producer-groups/${group} does that`,
          );
        }
        return { body: found };
      },
    },
  ];
}
