import {
  EscrowError,
  ProducerGroupAnswer,
  ProducerGroupName,
  ProducerGroupRequest,
  parse,
} from '@escrowmq/protocol';
import { z } from 'zod';
import { keyNameOf, requireGroup } from './api-keys.js';
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
        "Sets the endpoints for checks and compensations and the check policy, as a whole. Without check endpoints the group polls for its checks; without compensation endpoints its compensations wait, and an alert says so. Of settings with a version the highest stand: those of a lower one change nothing, rotate nothing and are answered with what is stored. Checks are signed with `signingSecrets`, which are the service's own and never answered; a call that changes nothing is a success. A caller without any gets one that is made, when the call creates the group or is asked to rotate it, and never again: `newSecret` gives that one, so that the call may be repeated. What replaces the endpoints or the secret of a group is told in `replaced` and in the broker's log.",
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
        const { created, answer } = await deps.registerGroup(
          group,
          request,
          keyNameOf(call.caller),
        );
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
