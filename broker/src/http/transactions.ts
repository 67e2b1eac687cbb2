import {
  CommitRequest,
  EscrowError,
  isPlainId,
  mayStillSettle,
  PrepareRequest,
  parse,
  plainPrepareRequest,
  ResolveRequest,
  SearchAnswer,
  SearchQuery,
  SendRequest,
  TransactionAnswer,
  TransactionId,
  TransactionView,
  ViewQuery,
} from '@escrowmq/protocol';
import { z } from 'zod';
import { groupOf, requireGroup } from './api-keys.js';
import { cancelRoute } from './cancel.js';
import type { HttpDeps } from './deps.js';
import type { Call, Route } from './route.js';
import { traceContextOf } from './trace-context.js';

type TransactionDeps = Pick<
  HttpDeps,
  | 'prepare'
  | 'send'
  | 'decide'
  | 'resolve'
  | 'cancel'
  | 'view'
  | 'waitForTransaction'
  | 'search'
  | 'observer'
>;

const IdParams = z.object({ id: TransactionId });

/** A rollback says all it has to say in its URL; a body that says more is a misunderstanding. */
const NoFields = z.strictObject({});

const idOf = ({ params: { id } }: Call): string =>
  isPlainId(id) ? id : parse(TransactionId, id, 'the id in the path');

const accepted = {
  200: {
    description: 'A repeat: the transaction exists with this content',
    schema: TransactionAnswer,
  },
  201: { description: 'Durably stored', schema: TransactionAnswer },
};

const INTAKE_PROBLEMS = [
  'INVALID_ID',
  'INVALID_NAME',
  'INVALID_BASE64',
  'TOO_MANY_MESSAGES',
  'FORBIDDEN_HEADER',
  'CONTENT_CONFLICT',
  'UNKNOWN_PRODUCER_GROUP',
  'ID_TIME_OUT_OF_RANGE',
  'BROKER_BUSY',
  'STORE_UNAVAILABLE',
] as const;

/** Preparing, deciding, sending, looking up, and an operator's word. */
export function transactionRoutes(deps: TransactionDeps): Route[] {
  return [
    prepareRoute(deps),
    sendRoute(deps),
    commitRoute(deps),
    rollbackRoute(deps),
    viewRoute(deps),
    searchRoute(deps),
    resolveRoute(deps),
    cancelRoute(deps),
  ];
}

function prepareRoute(deps: TransactionDeps): Route {
  return {
    method: 'POST',
    url: '/v1/transactions',
    access: ['producer'],
    operationId: 'prepare',
    summary: 'Prepare a transaction',
    description:
      'Stores the half messages durably and holds them until a verdict. Safe to repeat with the same id and content.',
    body: PrepareRequest,
    keepsTrace: true,
    answers: accepted,
    problems: INTAKE_PROBLEMS,
    async handle(call) {
      const request =
        plainPrepareRequest(call.body) ?? parse(PrepareRequest, call.body, 'the request');
      requireGroup(call.caller, request.producerGroup);
      const { created, answer } = await deps.prepare(request, traceContextOf(call.headers));
      return { status: created ? 201 : 200, body: answer };
    },
  };
}

function sendRoute(deps: TransactionDeps): Route {
  return {
    method: 'POST',
    url: '/v1/messages',
    access: ['producer'],
    operationId: 'send',
    summary: 'Send messages that need no verdict',
    description:
      'Prepares and commits in one step: reliable sends and outboxes. Safe to repeat with the same id and content.',
    body: SendRequest,
    keepsTrace: true,
    answers: accepted,
    problems: INTAKE_PROBLEMS,
    async handle(call) {
      const request = parse(SendRequest, call.body, 'the request');
      requireGroup(call.caller, request.producerGroup);
      const { created, answer } = await deps.send(request, traceContextOf(call.headers));
      return { status: created ? 201 : 200, body: answer };
    },
  };
}

const VERDICT_PROBLEMS = [
  'INVALID_ID',
  'TRANSACTION_NOT_FOUND',
  'STATE_CONFLICT',
  'BROKER_BUSY',
  'STORE_UNAVAILABLE',
] as const;

const decided = { 200: { description: 'Decided, now or before', schema: TransactionAnswer } };

const FINAL =
  'Safe to repeat; a decision never reverses, and the problem of a contradicting verdict carries the decision on record.';

function commitRoute(deps: TransactionDeps): Route {
  return {
    method: 'POST',
    url: '/v1/transactions/:id/commit',
    access: ['producer'],
    operationId: 'commit',
    summary: 'Commit a transaction',
    description: `Releases the half messages. Takes no body, unless prepare left messages open by dataAtCommit: then messageData supplies each of them, in the same durable step, and the data of the first commit stands. ${FINAL}`,
    params: IdParams,
    body: CommitRequest,
    bodyMayBeAbsent: true,
    answers: decided,
    problems: [...VERDICT_PROBLEMS, 'INVALID_BASE64', 'TOO_MANY_MESSAGES', 'MESSAGE_DATA_MISSING'],
    async handle(call) {
      const id = idOf(call);
      const producerGroup = groupOf(call.caller);
      const messageData =
        call.body === undefined
          ? undefined
          : parse(CommitRequest, call.body, 'the body of a commit').messageData;
      return { body: await deps.decide({ id, decision: 'commit', producerGroup, messageData }) };
    },
  };
}

function rollbackRoute(deps: TransactionDeps): Route {
  return {
    method: 'POST',
    url: '/v1/transactions/:id/rollback',
    access: ['producer'],
    operationId: 'rollback',
    summary: 'Roll a transaction back',
    description: `Drops the half messages. Takes no body. ${FINAL}`,
    params: IdParams,
    answers: decided,
    problems: VERDICT_PROBLEMS,
    async handle(call) {
      const id = idOf(call);
      if (call.body !== undefined) parse(NoFields, call.body, 'the body of a rollback');
      const producerGroup = groupOf(call.caller);
      return { body: await deps.decide({ id, decision: 'rollback', producerGroup }) };
    },
  };
}

function viewRoute(deps: TransactionDeps): Route {
  return {
    method: 'GET',
    url: '/v1/transactions/:id',
    access: ['producer', 'operator'],
    operationId: 'viewTransaction',
    summary: 'Look at one transaction',
    description:
      'State, decision, history of checks, receipts, compensations. Answers at once, or with waitMs as soon as it has settled, is parked, or only misses groups that gave up. Message bodies are not shown.',
    params: IdParams,
    query: ViewQuery,
    answers: { 200: { description: 'The transaction', schema: TransactionView } },
    problems: ['INVALID_ID', 'TRANSACTION_NOT_FOUND', 'BROKER_BUSY', 'STORE_UNAVAILABLE'],
    async handle(call) {
      const id = idOf(call);
      const { waitMs } = parse(ViewQuery, call.query, 'the query');
      const group = groupOf(call.caller);
      const look = async () => {
        const view = await deps.view(id);
        // Another group's transaction is as good as absent: not even its existence is told.
        if (view === undefined || (group !== undefined && view.producerGroup !== group)) {
          throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
        }
        return view;
      };
      const view = await look();
      if (waitMs === 0 || !mayStillSettle(view)) return { body: view };
      await deps.waitForTransaction(id, waitMs, call.untilGone());
      return { body: await look() };
    },
  };
}

function searchRoute(deps: TransactionDeps): Route {
  return {
    method: 'GET',
    url: '/v1/transactions',
    access: ['producer', 'operator'],
    operationId: 'searchTransactions',
    summary: 'Search transactions',
    description: 'Newest first. A producer key sees its own group only.',
    query: SearchQuery,
    answers: { 200: { description: 'One page', schema: SearchAnswer } },
    problems: ['INVALID_ID', 'INVALID_NAME', 'STORE_UNAVAILABLE'],
    async handle(call) {
      const query = parse(SearchQuery, call.query, 'the query');
      if (query.producerGroup !== undefined) requireGroup(call.caller, query.producerGroup);
      const producerGroup = query.producerGroup ?? groupOf(call.caller);
      return {
        body: await deps.search({
          ...query,
          ...(producerGroup === undefined ? {} : { producerGroup }),
        }),
      };
    },
  };
}

function resolveRoute(deps: TransactionDeps): Route {
  return {
    method: 'POST',
    url: '/v1/transactions/:id/resolve',
    access: ['operator'],
    operationId: 'resolve',
    summary: "Resolve a transaction by an operator's word",
    description:
      'Commits or rolls back what has no decision, asks the producer again, sends again what could not be delivered, closes what is forwarded and has not settled so that nobody waits for it any more, or says that the compensations it still owes are done. Recorded with name and reason. What prepare left open only the producer can commit, with its data.',
    params: IdParams,
    body: ResolveRequest,
    answers: { 200: { description: 'Done and recorded', schema: TransactionAnswer } },
    problems: [
      'INVALID_ID',
      'INVALID_NAME',
      'TRANSACTION_NOT_FOUND',
      'STATE_CONFLICT',
      'MESSAGE_DATA_MISSING',
      'BROKER_BUSY',
      'STORE_UNAVAILABLE',
    ],
    async handle(call) {
      const id = idOf(call);
      const request = parse(ResolveRequest, call.body, 'the request');
      const answer = await deps.resolve(id, request);
      // The name in the request is the operator's own claim; the key is what was proven.
      const key = call.caller.role === 'anyone' ? 'none' : call.caller.name;
      deps.observer.info('an operator resolved a transaction', {
        id,
        action: request.action,
        operator: request.operator,
        key,
      });
      return { body: answer };
    },
  };
}
