import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import {
  CLIENT_HEADER,
  clientOf,
  ERRORS,
  EscrowError,
  errorRow,
  forOlderCaller,
  fromProblem,
  mayStillSettle,
  namesVersion,
  Problem,
  TransactionView,
  toProblem,
  VERSION,
} from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createHttpServer } from '../../broker/src/http/server.js';
import { fakeDeps, ID, type Injected, PREPARE } from '../support/http-deps.js';

/** Status and `retryable` of every code that 0.1.0 had. Its SDKs know these; they never change. */
const CODES_OF_0_1: Record<string, [status: number, retryable: boolean]> = {
  INVALID_JSON: [400, false],
  INVALID_REQUEST: [400, false],
  UNKNOWN_FIELD: [400, false],
  INVALID_ID: [400, false],
  INVALID_NAME: [400, false],
  INVALID_BASE64: [400, false],
  TOO_MANY_MESSAGES: [400, false],
  FORBIDDEN_HEADER: [400, false],
  UNAUTHENTICATED: [401, false],
  FORBIDDEN: [403, false],
  TRANSACTION_NOT_FOUND: [404, false],
  PRODUCER_GROUP_NOT_FOUND: [404, false],
  WEBHOOK_NOT_FOUND: [404, false],
  ROUTE_NOT_FOUND: [404, false],
  REQUEST_TIMEOUT: [408, true],
  STATE_CONFLICT: [409, false],
  CONTENT_CONFLICT: [409, false],
  WEBHOOK_CONFLICT: [409, false],
  MESSAGE_NOT_CANCELLABLE: [409, false],
  BODY_TOO_LARGE: [413, false],
  UNSUPPORTED_MEDIA_TYPE: [415, false],
  UNKNOWN_PRODUCER_GROUP: [422, false],
  ID_TIME_OUT_OF_RANGE: [422, false],
  CHECK_URL_NOT_ALLOWED: [422, false],
  WEBHOOK_URL_NOT_ALLOWED: [422, false],
  MESSAGE_DATA_MISSING: [422, false],
  INTERNAL_ERROR: [500, true],
  BROKER_BUSY: [503, true],
  STORE_UNAVAILABLE: [503, true],
  RABBITMQ_UNAVAILABLE: [503, true],
  SHUTTING_DOWN: [503, true],
  BROKER_UNREACHABLE: [0, true],
  INVALID_CONFIGURATION: [0, false],
  SCHEMA_TOO_NEW: [0, false],
  DATABASE_UNAVAILABLE: [0, true],
  ALREADY_ROLLED_BACK: [0, false],
  TRANSACTION_MISUSED: [0, false],
  OUTCOME_UNKNOWN: [0, false],
  INVALID_SIGNATURE: [401, false],
  CHECK_NOT_ANSWERED: [500, true],
  COMPENSATION_NOT_DONE: [503, true],
};

describe('codes newer than 0.1', () => {
  test('every code of 0.1 is there as it was', () => {
    for (const [code, [status, retryable]] of Object.entries(CODES_OF_0_1)) {
      expect([code, errorRow(code)]).toEqual([
        code,
        expect.objectContaining({ status, retryable }),
      ]);
      expect([code, errorRow(code)?.before]).toEqual([code, undefined]);
    }
  });

  test('every other one that goes over HTTP names a code of 0.1 of its class, as retryable as itself', () => {
    for (const code of Object.keys(ERRORS)) {
      const { status = 0, retryable, before = 'none' } = errorRow(code) ?? {};
      if (code in CODES_OF_0_1 || status === 0) continue;
      const [statusBefore = 0, retryableBefore] = CODES_OF_0_1[before] ?? [];
      expect([code, before, Math.floor(statusBefore / 100), retryableBefore]).toEqual([
        code,
        before,
        Math.floor(status / 100),
        retryable,
      ]);
    }
  });
});

/** A code that only this test knows, as a later version would add one. */
const PLANTED = {
  status: 410,
  retryable: false,
  title: 'The transaction was closed',
  before: 'STATE_CONFLICT',
};

const NEWER = {
  state: { trying: 'prepared' },
  parkedReason: { branch: 'unresolved' },
  messageState: { discarded: 'cancelled' },
  groupState: { closed: 'failed' },
  compensationState: { refused: 'owed' },
  receiptKind: { skipped: 'left out' },
  historyEvent: { closed: 'left out' },
  code: (code: string) => errorRow(code)?.before,
} as const;

const view = {
  id: ID,
  producerGroup: 'accounts',
  state: 'trying',
  parkedReason: 'branch',
  preparedAt: 1,
  settled: false,
  businessKeys: ['order:1'],
  expects: ['stock'],
  checks: { unknown: 0, unanswered: 0 },
  forwarding: { failedAttempts: 0 },
  messages: [
    {
      messageId: `${ID}-0`,
      topic: 'orders',
      routingKey: 'closed',
      contentType: 'application/json',
      bytes: 2,
      state: 'discarded',
      ordering: {
        key: 'trying',
        waitsFor: { transactionId: ID, messageId: `${ID}-0`, sequence: 1, state: 'trying' },
      },
    },
  ],
  groups: [{ consumerGroup: 'stock', state: 'closed', attempts: 0 }],
  receipts: [
    { consumerGroup: 'stock', message: 0, kind: 'skipped', at: 1 },
    { consumerGroup: 'stock', message: 1, kind: 'consumed', at: 1 },
  ],
  compensations: [{ consumerGroup: 'stock', message: 0, state: 'refused', attempts: 1, at: 1 }],
  history: [
    { at: 1, event: 'closed', detail: { state: 'trying' } },
    { at: 2, event: 'check', detail: { state: 'trying' } },
  ],
};

describe('what a caller gets that does not name its version', () => {
  test('a view in the words of 0.1, without the events and receipts that 0.1 had not', () => {
    expect(forOlderCaller(view, NEWER)).toEqual({
      ...view,
      state: 'prepared',
      parkedReason: 'unresolved',
      messages: [
        {
          ...view.messages[0],
          state: 'cancelled',
          ordering: {
            key: 'trying',
            waitsFor: { transactionId: ID, messageId: `${ID}-0`, sequence: 1, state: 'prepared' },
          },
        },
      ],
      groups: [{ consumerGroup: 'stock', state: 'failed', attempts: 0 }],
      receipts: [view.receipts[1]],
      compensations: [{ consumerGroup: 'stock', message: 0, state: 'owed', attempts: 1, at: 1 }],
      history: [view.history[1]],
    });
  });

  test('a search, a key and a batch likewise, each entry', () => {
    const trying = { id: ID, state: 'trying' };
    const prepared = { id: ID, state: 'prepared' };
    expect(
      forOlderCaller({ businessKey: 'trying', transactions: [trying, trying] }, NEWER),
    ).toEqual({ businessKey: 'trying', transactions: [prepared, prepared] });
    expect(forOlderCaller({ results: [{ status: 200, answer: trying }] }, NEWER)).toEqual({
      results: [{ status: 200, answer: prepared }],
    });
  });

  test.each([undefined, null, 'trying', 7, [], { state: { trying: 1 } }])(
    'what is no answer stays: %j',
    (body) => {
      expect(forOlderCaller(body, NEWER)).toEqual(body);
    },
  );

  test('an answer of today is the same for both', () => {
    const today = {
      ...view,
      state: 'parked',
      parkedReason: 'unresolved',
      history: [view.history[1]],
    };
    expect(forOlderCaller(today)).toEqual(today);
  });
});

describe('the broker, with a code that 0.1 had not', () => {
  beforeEach(() => void Object.assign(ERRORS, { PLANTED }));
  afterEach(() => void Reflect.deleteProperty(ERRORS, 'PLANTED'));

  const planted = () => new EscrowError('PLANTED' as 'STATE_CONFLICT', 'it was closed');
  const serverOf = () =>
    createHttpServer(
      fakeDeps({
        decide: async () => {
          throw planted();
        },
      }),
      { apiKeys: [] },
    );

  async function ask(request: Injected, client?: string) {
    const server = serverOf();
    const headers = client === undefined ? {} : { [CLIENT_HEADER]: client };
    const { statusCode, body } = await server.inject({ method: 'POST', headers, ...request });
    await server.close();
    return { status: statusCode, body: JSON.parse(body) };
  }

  const commit = { url: `/v1/transactions/${ID}/commit` };
  const batch = {
    url: '/v1/batch',
    payload: {
      operations: [
        { op: 'prepare', ...PREPARE },
        { op: 'commit', id: ID },
      ],
    },
  };
  const older = { status: 409, code: 'STATE_CONFLICT', detail: 'it was closed' };
  const newer = { status: 410, code: 'PLANTED', detail: 'it was closed' };

  test.each([undefined, '', 'curl', 'escrowmq-producer', 'escrowmq-producer/new'])(
    'answers the older one to a caller whose escrow-client is %p, alone and in a batch',
    async (client) => {
      expect(await ask(commit, client)).toMatchObject({ status: 409, body: older });
      const { results } = (await ask(batch, client)).body;
      expect(results).toEqual([
        { status: 201, answer: { id: ID, state: 'prepared' } },
        { status: 409, problem: expect.objectContaining(older) },
      ]);
    },
  );

  test.each([clientOf('escrowmq-producer'), 'my-client/1.0.0', 'escrowmq-producer/0.3.0-rc.1'])(
    'answers the code itself to %s, alone and in a batch',
    async (client) => {
      expect(namesVersion(client)).toBe(true);
      expect(await ask(commit, client)).toMatchObject({ status: 410, body: newer });
      const { results } = (await ask(batch, client)).body;
      expect(results[1]).toEqual({ status: 410, problem: expect.objectContaining(newer) });
    },
  );
});

describe('an SDK, with words of a newer broker', () => {
  test('takes a code that it does not know by its status and whether it may be retried', () => {
    const problem = { ...toProblem(new EscrowError('BROKER_BUSY', 'wait')), code: 'QUOTA_USED' };
    const error = fromProblem(Problem.parse({ ...problem, status: 429, sinceMs: 5 }));
    expect(error).toMatchObject({ code: 'QUOTA_USED', status: 429, retryable: true });
    expect(error.details).toEqual({ sinceMs: 5 });
    expect(toProblem(error)).toMatchObject({ code: 'QUOTA_USED', status: 429, retryable: true });
  });

  test('judges a code that it knows by its own table', () => {
    const problem = { ...toProblem(new EscrowError('STATE_CONFLICT', 'x')), retryable: true };
    expect(fromProblem(Problem.parse(problem)).retryable).toBe(false);
  });

  test('reads a view with unknown states, kinds, events and fields', () => {
    expect(TransactionView.parse({ ...view, cell: 'eu-1' })).toEqual(view);
  });

  test('goes on waiting where a group is in a state that it does not know', () => {
    const failed = { consumerGroup: 'mail', state: 'failed', attempts: 3 };
    const groups = (...states: object[]) =>
      mayStillSettle(TransactionView.parse({ ...view, groups: states }));
    expect(groups(failed)).toBe(false);
    expect(groups(failed, { ...failed, state: 'consumed' })).toBe(false);
    expect(groups(failed, { ...failed, state: 'closing' })).toBe(true);
  });
});

const foldersOf = (pattern: string): string[] =>
  pattern.endsWith('/*')
    ? readdirSync(path.dirname(pattern)).map((name) => path.join(path.dirname(pattern), name))
    : [pattern];

interface Manifest {
  version: string;
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
}

test('every package has the version that its code says it has, also where one needs another', () => {
  const { workspaces } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    workspaces: string[];
  };
  const folders = workspaces.flatMap((pattern) =>
    foldersOf(pattern).filter((folder) => existsSync(path.join(folder, 'package.json'))),
  );
  for (const folder of ['.', ...folders]) {
    const text = readFileSync(path.join(folder, 'package.json'), 'utf8');
    const { version, dependencies, devDependencies } = JSON.parse(text) as Manifest;
    const ours = Object.entries({ ...dependencies, ...devDependencies })
      .filter(([name]) => name.startsWith('@escrowmq/'))
      .map(([, wanted]) => wanted);
    expect([folder, version, ...new Set(ours)]).toEqual([
      folder,
      VERSION,
      ...(ours.length > 0 ? [VERSION] : []),
    ]);
  }
});
