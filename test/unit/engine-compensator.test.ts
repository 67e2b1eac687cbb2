import { type CheckPolicy, type CompensationRequest, EscrowError } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type {
  CompensationKey,
  CompensationOutcome,
  CompensationToSave,
  DueCompensation,
} from '../../broker/src/domain/compensations.js';
import type { ReceiptsSaved } from '../../broker/src/domain/group-standing.js';
import type { ProducerGroup } from '../../broker/src/domain/ports.js';
import { createCompensator } from '../../broker/src/engine/compensator.js';
import {
  clockAt,
  currentId,
  NOW,
  producerGroup,
  recordingObserver,
} from '../support/engine-fakes.js';
import { deferred } from '../support/ready.js';

const ENDPOINT = 'http://127.0.0.1:1/compensate';
const HOUR_MS = 3_600_000;
const CONCURRENT_MAX = 256;

const acknowledged: CompensationOutcome = { kind: 'acknowledged', endpoint: ENDPOINT, tookMs: 3 };
const unanswered: CompensationOutcome = {
  kind: 'unanswered',
  endpoint: ENDPOINT,
  tookMs: 12,
  detail: 'HTTP 503',
};

const dueCompensation = (changes: Partial<DueCompensation> = {}): DueCompensation => ({
  id: currentId(),
  message: 0,
  consumerGroup: 'index',
  producerGroup: 'accounts',
  businessKeys: ['phone:1'],
  preparedAt: NOW - 10_000,
  trace: {},
  requestedAt: NOW - 1_000,
  attempts: 1,
  failures: 0,
  alerted: false,
  ...changes,
});

interface Options {
  policy?: Partial<CheckPolicy>;
  group?: ProducerGroup | undefined;
  compensate?(request: CompensationRequest): Promise<CompensationOutcome>;
  consumed?: CompensationKey[];
  receipts?: ReceiptsSaved;
  /** Calls that a group's endpoints take. @default any number */
  room?: Record<string, number>;
}

function compensating(due: DueCompensation[], outcome: CompensationOutcome, options: Options = {}) {
  const called: CompensationRequest[] = [];
  const saved: CompensationToSave[] = [];
  const claims: { limit: number; exceptGroups: readonly string[] }[] = [];
  const released: DueCompensation[] = [];
  const observer = recordingObserver();
  const group = 'group' in options ? options.group : producerGroup(options.policy);
  const compensator = createCompensator({
    store: {
      async claimDueCompensations(claim) {
        claims.push(claim);
        return { now: NOW, due };
      },
      async saveCompensations(batch) {
        saved.push(...batch);
        return options.consumed ?? [];
      },
      async releaseCompensations(items) {
        released.push(...items);
      },
      saveReceipts: async () => options.receipts ?? { settled: [], reversed: [], late: [] },
    },
    caller: {
      async compensate(_group, request) {
        called.push(request);
        return options.compensate?.(request) ?? outcome;
      },
      roomFor: ({ name }) => options.room?.[name] ?? Number.POSITIVE_INFINITY,
      busyGroups: () => ['busy'],
    },
    findGroup: async (name) => (group === undefined ? undefined : { ...group, name }),
    clock: clockAt(),
    random: () => 0.5,
    observer,
  });
  async function pass(): Promise<number> {
    const begun = await compensator.compensateOnce();
    await compensator.idle();
    return begun;
  }
  return { compensator, pass, called, saved, claims, released, observer };
}

describe('a call', () => {
  test('tells what was given up, by whom and why', async () => {
    const due = dueCompensation({
      message: 2,
      checkContext: 'shard-3',
      failedAttempts: 5,
      cause: 'no disk',
      sent: true,
      attempts: 7,
    });
    const { pass, called, claims } = compensating([due], acknowledged);
    expect(await pass()).toBe(1);
    expect(claims).toMatchObject([{ limit: CONCURRENT_MAX, exceptGroups: ['busy'] }]);
    expect(called).toEqual([
      {
        id: due.id,
        producerGroup: 'accounts',
        checkContext: 'shard-3',
        businessKeys: ['phone:1'],
        preparedAt: NOW - 10_000,
        sent: true,
        consumerGroup: 'index',
        message: 2,
        messageId: `${due.id}-2`,
        attempts: 5,
        cause: 'no disk',
        attempt: 7,
      },
    ]);
  });

  test('that is acknowledged is done', async () => {
    const due = dueCompensation();
    const { pass, saved, observer } = compensating([due], acknowledged);
    await pass();
    expect(saved).toEqual([{ due, result: { kind: 'acknowledged' } }]);
    expect(observer.alerts).toEqual([]);
    expect(observer.counts).toEqual([['compensations', { outcome: 'acknowledged' }, 1]]);
  });

  test('that is acknowledged after its group has consumed the message is alerted', async () => {
    const due = dueCompensation();
    const { id, message, consumerGroup } = due;
    const consumed = [{ id, message, consumerGroup }];
    const { pass, observer } = compensating([due], acknowledged, { consumed });
    await pass();
    expect(observer.alerts).toEqual([
      {
        kind: 'consumedAfterCompensation',
        transactionId: id,
        producerGroup: 'accounts',
        detail: 'message 0 for index was compensated and was consumed after all',
      },
    ]);
  });

  test('without an answer is repeated with growing delays, up to a cap and without an end', async () => {
    const policy = { firstDelayMs: 1_000, delayMsMax: 60_000 };
    for (const [failures, delayMs] of [
      [0, 1_000],
      [1, 2_000],
      [5, 32_000],
      [6, 60_000],
      [10_000, 60_000],
    ] as const) {
      const due = dueCompensation({ failures });
      const { pass, saved, observer } = compensating([due], unanswered, { policy });
      await pass();
      expect(saved).toEqual([
        {
          due,
          result: {
            kind: 'unanswered',
            called: true,
            dueAt: NOW + delayMs,
            lastFailure: 'HTTP 503',
            alerted: false,
          },
        },
      ]);
      expect(observer.alerts).toEqual([]);
    }
  });

  test('without an answer for long enough is alerted, once', async () => {
    const late = dueCompensation({ requestedAt: NOW - HOUR_MS });
    const first = compensating([late], unanswered);
    await first.pass();
    expect(first.observer.alerts).toEqual([
      {
        kind: 'compensationUnanswered',
        transactionId: late.id,
        producerGroup: 'accounts',
        detail: 'message 0 for index: HTTP 503',
      },
    ]);
    expect(first.saved).toMatchObject([{ result: { alerted: true } }]);
    const again = compensating([{ ...late, alerted: true }], unanswered);
    await again.pass();
    expect(again.observer.alerts).toEqual([]);
    expect(again.saved).toMatchObject([{ result: { alerted: true } }]);
  });

  test('that could not be made is no attempt', async () => {
    const nobody = { kind: 'unanswered', tookMs: 0, detail: 'breaker open' } as const;
    const { pass, saved } = compensating([dueCompensation()], nobody);
    await pass();
    expect(saved).toMatchObject([{ result: { called: false, lastFailure: 'breaker open' } }]);
  });

  test('whose outcome can not be saved is left to its lease', async () => {
    const failing = {
      compensate: async () => Promise.reject(new EscrowError('STORE_UNAVAILABLE', 'away')),
    };
    const { pass, saved, observer } = compensating([dueCompensation()], acknowledged, failing);
    await pass();
    expect(saved).toEqual([]);
    expect(observer.failures).toHaveLength(1);
  });
});

describe('a group without an endpoint', () => {
  test.each([
    ['has registered none', { ...producerGroup(), compensationUrls: [] }, /no compensation URL/],
    ['is not registered', undefined, /accounts is not registered/],
  ])('that %s is alerted of at once, and what is owed waits', async (_, group, detail) => {
    const { pass, called, saved, observer } = compensating([dueCompensation()], acknowledged, {
      group,
    });
    await pass();
    expect(called).toEqual([]);
    expect(saved).toMatchObject([{ result: { kind: 'unanswered', called: false, alerted: true } }]);
    expect(observer.alerts).toMatchObject([
      { kind: 'compensationUnanswered', detail: expect.stringMatching(detail) },
    ]);
  });
});

describe('room', () => {
  test('what one group has no room for is given back, and others go on', async () => {
    const [slow, fine] = [
      dueCompensation({ producerGroup: 'slow' }),
      dueCompensation({ producerGroup: 'fine' }),
    ];
    const { pass, called, released } = compensating([slow, fine], acknowledged, {
      room: { slow: 0 },
    });
    await pass();
    expect(released).toEqual([slow]);
    expect(called.map(({ id }) => id)).toEqual([fine.id]);
  });

  test('no more than 256 are under way', async () => {
    const answer = deferred<CompensationOutcome>();
    const many = Array.from({ length: CONCURRENT_MAX }, () => dueCompensation());
    const { compensator, claims } = compensating(many, acknowledged, {
      compensate: () => answer.promise,
    });
    await compensator.compensateOnce();
    expect(await compensator.compensateOnce()).toBe(0);
    expect(claims).toHaveLength(1);
    answer.resolve(acknowledged);
    await compensator.idle();
  });
});

test('receipts of what was compensated, or may have been, are alerted', async () => {
  const key = { message: 1, consumerGroup: 'index', producerGroup: 'accounts' };
  const [done, perhaps] = [currentId(), currentId()];
  const reversed = [
    { ...key, id: done, acknowledged: true },
    { ...key, id: perhaps, acknowledged: false },
  ];
  const { compensator, observer } = compensating([], acknowledged, {
    receipts: { settled: [], reversed, late: [] },
  });
  await compensator.takeReceipts([]);
  expect(observer.alerts).toMatchObject(
    [
      { kind: 'consumedAfterCompensation', transactionId: done, detail: /was compensated and/ },
      { transactionId: perhaps, detail: /may have been compensated/ },
    ].map(({ detail, ...alert }) => ({ ...alert, detail: expect.stringMatching(detail) })),
  );
});
