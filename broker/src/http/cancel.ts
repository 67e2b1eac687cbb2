import { CancelAnswer, CancelRequest, EscrowError, parse, TransactionId } from '@escrowmq/protocol';
import { z } from 'zod';
import { type Caller, groupOf } from './api-keys.js';
import type { HttpDeps } from './deps.js';
import type { Route } from './route.js';

const IdParams = z.object({ id: TransactionId });

/** A producer acts as its group, and only a person has a name to give. */
function checkOperator({ role }: Caller, operator: string | undefined): void {
  if (role === 'producer' && operator !== undefined) {
    throw new EscrowError('FORBIDDEN', 'the name of an operator goes with the key of an operator');
  }
  if (role === 'operator' && operator === undefined) {
    throw new EscrowError('INVALID_REQUEST', 'an operator cancels by name: "operator" is missing', {
      fields: [{ path: 'operator', message: "is needed with an operator's key" }],
    });
  }
}

/** Taking back messages that wait for their time. */
export function cancelRoute(deps: Pick<HttpDeps, 'cancel' | 'observer'>): Route {
  return {
    method: 'POST',
    url: '/v1/transactions/:id/cancel',
    access: ['producer', 'operator'],
    operationId: 'cancel',
    summary: 'Cancel delayed messages',
    description:
      'Takes back messages with deliverAt or delayMs of a committed transaction, as long as their time has not come: all that are named, or none. Recorded with its reason. Safe to repeat.',
    params: IdParams,
    body: CancelRequest,
    answers: { 200: { description: 'Cancelled, now or before', schema: CancelAnswer } },
    problems: [
      'INVALID_ID',
      'INVALID_NAME',
      'TRANSACTION_NOT_FOUND',
      'MESSAGE_NOT_CANCELLABLE',
      'STORE_UNAVAILABLE',
    ],
    async handle({ params, body, caller }) {
      const id = parse(TransactionId, params.id, 'the id in the path');
      const request = parse(CancelRequest, body, 'the request');
      checkOperator(caller, request.operator);
      const answer = await deps.cancel(id, request, groupOf(caller));
      // The name in the request is the operator's own claim; the key is what was proven.
      if (request.operator !== undefined) {
        deps.observer.info('an operator cancelled messages', {
          id,
          operator: request.operator,
          key: caller.role === 'anyone' ? 'none' : caller.name,
        });
      }
      return { body: answer };
    },
  };
}
