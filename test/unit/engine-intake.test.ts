import { EscrowError, LIMITS, PrepareRequest, SendRequest } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { Found, Inserted, Verdict, VerdictResult } from '../../broker/src/domain/ports.js';
import { byProducer, type NewTransaction } from '../../broker/src/domain/transaction.js';
import { createHeldTransactions } from '../../broker/src/engine/held-transactions.js';
import { createIntake, type IntakeDeps } from '../../broker/src/engine/intake.js';
import {
  clockAt,
  currentId,
  NOW,
  producerGroup,
  recordingObserver,
} from '../support/engine-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';
import { newId } from '../support/store-fixtures.js';

const LEASE_MS = 30_000;
const HOUR_MS = 3_600_000;
/** The intake's own limits. */
const WAITING_PREPARES_MAX = 10_000;
const WAITING_VERDICTS_MAX = 50_000;

interface Options {
  insert?(batch: readonly NewTransaction[]): Promise<Inserted[]>;
  decide?(batch: readonly Verdict[], leaseMs: number): Promise<VerdictResult[]>;
  found?: Found[];
  leaseMs?: number;
  newId?: () => string;
}

function takingIn(options: Options = {}) {
  const inserted: NewTransaction[] = [];
  const verdicts: Verdict[][] = [];
  const moved: { ids: string[]; leaseLeftMs: number }[] = [];
  const observer = recordingObserver();
  const held = createHeldTransactions(10_000_000);
  const deps: IntakeDeps = {
    store: {
      insert(batch) {
        inserted.push(...batch);
        return options.insert?.(batch) ?? Promise.resolve(batch.map(() => ({ kind: 'created' })));
      },
      decide(batch, leaseMs) {
        verdicts.push([...batch]);
        return (
          options.decide?.(batch, leaseMs) ?? Promise.resolve(batch.map(() => ({ kind: 'moved' })))
        );
      },
      find: async (ids) =>
        new Map(
          (options.found ?? []).filter(({ id }) => ids.includes(id)).map((one) => [one.id, one]),
        ),
    },
    clock: clockAt(),
    findGroup: async (name) => (name === 'accounts' ? producerGroup() : undefined),
    held,
    forwarder: {
      leaseMs: () => options.leaseMs ?? LEASE_MS,
      forwardMoved: (ids, leaseEndsAt) =>
        moved.push({ ids, leaseLeftMs: leaseEndsAt - performance.now() }),
    },
    newId: options.newId ?? currentId,
    observer,
  };
  return { intake: createIntake(deps), inserted, verdicts, moved, observer, held };
}

const prepareRequest = (changes: object = {}) =>
  PrepareRequest.parse({
    id: currentId(),
    producerGroup: 'accounts',
    messages: [{ topic: 'user', data: 1 }],
    ...changes,
  });
const sendRequest = (changes: object = {}) => SendRequest.parse(prepareRequest(changes));

const verdictOn = (id: string, decision: 'commit' | 'rollback'): Verdict => ({
  id,
  decision,
  decidedBy: byProducer,
});

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'ok';
  } catch (error) {
    if (error instanceof EscrowError) return error.code;
    throw error;
  }
}

const record = { decision: 'commit', at: NOW, by: 'producer' } as const;
const rolledBackRecord = { decision: 'rollback', at: NOW, by: 'operator ann' } as const;

function row(id: string, state: Extract<Found, { kind: 'row' }>['state']): Found {
  const decided = state.state === 'rolledBack' ? rolledBackRecord : record;
  const undecided =
    state.state === 'prepared' || (state.state === 'parked' && state.reason === 'unresolved');
  return {
    kind: 'row',
    id,
    producerGroup: 'accounts',
    state,
    messageCount: 1,
    ...(undecided ? {} : { decision: decided }),
  };
}

const forwardedRow = (id: string) => row(id, { state: 'forwarded', forwardedAt: NOW });
const rolledBackRow = (id: string) => row(id, { state: 'rolledBack', decidedAt: NOW });
const tombstone = (id: string): Found => ({
  kind: 'tombstone',
  id,
  producerGroup: 'accounts',
  decision: record,
});

describe('prepare', () => {
  test('a new transaction is created, counted and held for its commit', async () => {
    const { intake, inserted, observer, held, moved } = takingIn();
    const request = prepareRequest({ checkContext: 'shard-3' });
    const id = request.id!;
    const accepted = await intake.prepare(request, { traceparent: '00-a-b-01' });
    expect(accepted).toEqual({ created: true, answer: { id, state: 'prepared' } });
    expect(inserted).toMatchObject([
      {
        id,
        checkContext: 'shard-3',
        trace: { traceparent: '00-a-b-01' },
        preparedAt: NOW,
        mayBePurged: false,
        kind: { op: 'prepare', checkAfterMs: 10_000 },
      },
    ]);
    expect(inserted[0]!.bytes).toBe(Buffer.byteLength(JSON.stringify(request.messages)));
    expect(observer.counts).toEqual([['transactionsAccepted', { kind: 'prepare' }, 1]]);
    expect(held.take(id)).toBe(inserted[0]);
    expect(moved).toEqual([]);
  });

  test('it is answered when its row is durable, never before', async () => {
    const durable = deferred<Inserted[]>();
    const { intake, held } = takingIn({ insert: () => durable.promise });
    const request = prepareRequest();
    let answered = false;
    const call = intake.prepare(request, {}).then(() => {
      answered = true;
    });
    await whatIsReady();
    expect(answered).toBe(false);
    expect(held.take(request.id!)).toBeUndefined();
    durable.resolve([{ kind: 'created' }]);
    await call;
  });

  test('without an id the broker makes one', async () => {
    const id = currentId();
    const { intake } = takingIn({ newId: () => id });
    const { answer } = await intake.prepare(prepareRequest({ id: undefined }), {});
    expect(answer.id).toBe(id);
  });

  test("the caller's own delay of the first check goes before the group's", async () => {
    const { intake, inserted } = takingIn();
    await intake.prepare(prepareRequest({ checkAfterMs: 0 }), {});
    expect(inserted[0]!.kind).toEqual({ op: 'prepare', checkAfterMs: 0 });
  });

  test("another delay of the first check is other content; the group's default is not", async () => {
    const { intake, inserted } = takingIn();
    const request = prepareRequest();
    for (const checkAfterMs of [undefined, undefined, 10_000]) {
      await intake.prepare({ ...request, checkAfterMs } as PrepareRequest, {});
    }
    const [one, again, other] = inserted.map(({ contentHash }) => contentHash.toString('hex'));
    expect(one).toBe(again);
    expect(one).not.toBe(other);
  });

  test('a repeat is answered from what is there, and held by nobody twice', async () => {
    const request = prepareRequest();
    const id = request.id!;
    const { intake, observer, held } = takingIn({
      insert: async () => [{ kind: 'repeated', found: forwardedRow(id) }],
    });
    expect(await intake.prepare(request, {})).toEqual({
      created: false,
      answer: { id, state: 'forwarded', decision: record },
    });
    expect(observer.counts).toEqual([]);
    expect(held.take(id)).toBeUndefined();
  });

  test('a repeat long after is answered from the tombstone', async () => {
    const request = prepareRequest();
    const id = request.id!;
    const { intake } = takingIn({
      insert: async () => [{ kind: 'repeated', found: tombstone(id) }],
    });
    const { answer } = await intake.prepare(request, {});
    expect(answer).toEqual({ id, state: 'forwarded', decision: record, purged: true });
  });

  test('an id taken by other content is refused', async () => {
    const { intake } = takingIn({ insert: async () => [{ kind: 'different' }] });
    expect(await codeOf(intake.prepare(prepareRequest(), {}))).toBe('CONTENT_CONFLICT');
  });

  test('a group that is not registered is refused, and nothing is stored', async () => {
    const { intake, inserted } = takingIn();
    const call = intake.prepare(prepareRequest({ producerGroup: 'nobody' }), {});
    expect(await codeOf(call)).toBe('UNKNOWN_PRODUCER_GROUP');
    expect(inserted).toEqual([]);
  });

  test('prepares of one moment share an insert; one id goes into successive ones', async () => {
    const sizes: number[] = [];
    const { intake } = takingIn({
      insert: async (batch) => {
        sizes.push(batch.length);
        return batch.map(() => ({ kind: 'created' }));
      },
    });
    const twice = prepareRequest();
    const requests = [twice, prepareRequest(), twice, prepareRequest()];
    await Promise.all(requests.map((request) => intake.prepare(request, {})));
    expect(sizes).toEqual([3, 1]);
  });

  test('an insert that fails is the caller’s to repeat', async () => {
    const { intake, held } = takingIn({
      insert: () => Promise.reject(new EscrowError('STORE_UNAVAILABLE', 'away')),
    });
    const request = prepareRequest();
    expect(await codeOf(intake.prepare(request, {}))).toBe('STORE_UNAVAILABLE');
    expect(held.take(request.id!)).toBeUndefined();
  });
});

describe('the time inside an id', () => {
  const agedId = (ageMs: number) => newId(NOW - ageMs);
  const accepts = async (ageMs: number, found: Found['kind'] | undefined = undefined) => {
    const id = agedId(ageMs);
    const there = { row: [forwardedRow(id)], tombstone: [tombstone(id)] };
    const { intake, inserted } = takingIn({ found: found === undefined ? [] : there[found] });
    const code = await codeOf(intake.prepare(prepareRequest({ id }), {}));
    return { code, mayBePurged: inserted[0]?.mayBePurged };
  };

  test.each([
    ['29 days old', LIMITS.idAgeMsMax, 'ok'],
    ['older than 29 days', LIMITS.idAgeMsMax + 1, 'ID_TIME_OUT_OF_RANGE'],
    ['an hour ahead', -LIMITS.idAheadMsMax, 'ok'],
    ['more than an hour ahead', -LIMITS.idAheadMsMax - 1, 'ID_TIME_OUT_OF_RANGE'],
  ])('%s', async (_, ageMs, code) => {
    expect((await accepts(ageMs)).code).toBe(code);
  });

  test.each(['row', 'tombstone'] as const)(
    'an id out of range that still has its %s is looked up as any repeat',
    async (kind) => {
      expect(await accepts(40 * 24 * HOUR_MS, kind)).toEqual({ code: 'ok', mayBePurged: true });
    },
  );

  test('only an id of more than an hour may have a tombstone', async () => {
    expect((await accepts(HOUR_MS)).mayBePurged).toBe(false);
    expect((await accepts(HOUR_MS + 1)).mayBePurged).toBe(true);
  });
});

describe('send', () => {
  test('it is committed at once and forwarded while its lease lasts', async () => {
    const { intake, inserted, moved, observer } = takingIn();
    const request = sendRequest();
    const id = request.id!;
    expect(await intake.send(request, {})).toEqual({
      created: true,
      answer: { id, state: 'committed' },
    });
    expect(inserted[0]!.kind).toEqual({ op: 'send', leaseMs: LEASE_MS });
    expect(moved).toMatchObject([{ ids: [id] }]);
    expect(moved[0]!.leaseLeftMs).toBeLessThanOrEqual(LEASE_MS);
    expect(moved[0]!.leaseLeftMs).toBeGreaterThan(LEASE_MS / 2);
    expect(observer.counts).toEqual([['transactionsAccepted', { kind: 'send' }, 1]]);
  });

  test('without a lease nothing is forwarded here, and nothing is kept', async () => {
    const { intake, inserted, moved, held } = takingIn({ leaseMs: 0 });
    const request = sendRequest();
    await intake.send(request, {});
    expect(inserted[0]!.kind).toEqual({ op: 'send', leaseMs: 0 });
    expect(moved).toEqual([]);
    expect(held.take(request.id!)).toBeUndefined();
  });

  test('a repeated send is not forwarded again', async () => {
    const request = sendRequest();
    const { intake, moved } = takingIn({
      insert: async () => [{ kind: 'repeated', found: forwardedRow(request.id!) }],
    });
    await intake.send(request, {});
    expect(moved).toEqual([]);
  });

  test('a prepare and a send of the same are different content', async () => {
    const { intake, inserted } = takingIn();
    const request = sendRequest();
    await intake.send(request, {});
    await intake.prepare(request, {});
    expect(inserted[0]!.contentHash).not.toEqual(inserted[1]!.contentHash);
  });
});

describe('verdicts', () => {
  test('a commit that moved its row is forwarded by whoever moved it', async () => {
    const { intake, moved, observer } = takingIn();
    const id = currentId();
    expect(await intake.decide(verdictOn(id, 'commit'))).toEqual({ id, state: 'committed' });
    expect(moved).toMatchObject([{ ids: [id] }]);
    expect(moved[0]!.leaseLeftMs).toBeLessThanOrEqual(LEASE_MS);
    expect(observer.counts).toEqual([['verdicts', { decision: 'commit', result: 'moved' }, 1]]);
  });

  test('a rollback forwards nothing and lets go of the messages', async () => {
    const { intake, moved, held } = takingIn();
    const request = prepareRequest();
    await intake.prepare(request, {});
    const answer = await intake.decide(verdictOn(request.id!, 'rollback'));
    expect(answer.state).toBe('rolledBack');
    expect(moved).toEqual([]);
    expect(held.take(request.id!)).toBeUndefined();
  });

  test('a commit without a lease forwards nothing and lets go of the messages', async () => {
    const { intake, moved, held } = takingIn({ leaseMs: 0 });
    const request = prepareRequest();
    await intake.prepare(request, {});
    await intake.decide(verdictOn(request.id!, 'commit'));
    expect(moved).toEqual([]);
    expect(held.take(request.id!)).toBeUndefined();
  });

  test('in one batch only what moved is forwarded', async () => {
    const [a, b, c, d] = [currentId(), currentId(), currentId(), currentId()];
    const results: Record<string, VerdictResult> = {
      [a]: { kind: 'moved' },
      [b]: { kind: 'decided', found: forwardedRow(b) },
      [c]: { kind: 'unknown' },
      [d]: { kind: 'moved' },
    };
    const { intake, moved, verdicts } = takingIn({
      decide: async (batch) => batch.map(({ id }) => results[id]!),
    });
    const calls = [a, b, c, d].map((id) => codeOf(intake.decide(verdictOn(id, 'commit'))));
    expect(await Promise.all(calls)).toEqual(['ok', 'ok', 'TRANSACTION_NOT_FOUND', 'ok']);
    expect(verdicts).toHaveLength(1);
    expect(moved).toMatchObject([{ ids: [a, d] }]);
  });

  test('two verdicts on one id meet in successive batches', async () => {
    const { intake, verdicts } = takingIn();
    const id = currentId();
    await Promise.all([
      intake.decide(verdictOn(id, 'commit')),
      intake.decide(verdictOn(id, 'rollback')),
    ]);
    expect(verdicts.map((batch) => batch.map(({ decision }) => decision))).toEqual([
      ['commit'],
      ['rollback'],
    ]);
  });

  const decidedAs = (found: (id: string) => Found) => {
    const id = currentId();
    const parts = takingIn({ decide: async () => [{ kind: 'decided', found: found(id) }] });
    return { ...parts, id };
  };

  test.each([
    ['commit', 'forwarded', forwardedRow],
    ['commit', 'committed', (id: string) => row(id, COMMITTED)],
    ['commit', 'parked', (id: string) => row(id, UNDELIVERABLE)],
    ['rollback', 'rolledBack', rolledBackRow],
  ] as const)('a repeated %s of what is %s is a success', async (decision, state, found) => {
    const { intake, id, observer } = decidedAs(found);
    expect(await intake.decide(verdictOn(id, decision))).toMatchObject({ id, state });
    expect(observer.infos).toEqual([]);
  });

  test.each([
    ['rollback', 'forwarded', forwardedRow],
    ['rollback', 'committed', (id: string) => row(id, COMMITTED)],
    ['rollback', 'parked', (id: string) => row(id, UNDELIVERABLE)],
    ['commit', 'rolledBack', rolledBackRow],
  ] as const)(
    'a %s of what is %s is refused, with the decision',
    async (decision, state, found) => {
      const { intake, id, observer, moved } = decidedAs(found);
      const error = await intake.decide(verdictOn(id, decision)).catch((reason) => reason);
      expect(error).toMatchObject({
        code: 'STATE_CONFLICT',
        details: { id, state, decision: decision === 'commit' ? rolledBackRecord : record },
      });
      expect(error.message).toContain(id);
      expect(error.message).toContain(decision === 'commit' ? 'operator ann' : 'producer');
      expect(observer.counts.map(([name]) => name)).toEqual(['verdicts', 'verdictConflicts']);
      expect(observer.infos).toHaveLength(1);
      expect(moved).toEqual([]);
    },
  );

  test('a tombstone answers a repeat and refuses the other decision', async () => {
    const { intake, id } = decidedAs(tombstone);
    expect(await intake.decide(verdictOn(id, 'commit'))).toEqual({
      id,
      state: 'forwarded',
      decision: record,
      purged: true,
    });
    expect(await codeOf(intake.decide(verdictOn(id, 'rollback')))).toBe('STATE_CONFLICT');
  });

  test('the lease is counted from before the update, however long that takes', async () => {
    const updated = deferred<VerdictResult[]>();
    const { intake, moved } = takingIn({ decide: () => updated.promise });
    const call = intake.decide(verdictOn(currentId(), 'commit'));
    await whatIsReady();
    const waitedFrom = performance.now();
    await whatIsReady();
    const waitedMs = performance.now() - waitedFrom;
    updated.resolve([{ kind: 'moved' }]);
    await call;
    expect(moved[0]!.leaseLeftMs).toBeLessThanOrEqual(LEASE_MS - waitedMs);
  });
});

const COMMITTED = { state: 'committed', pending: 1, attempts: 0, dueAt: NOW } as const;
const UNDELIVERABLE = {
  state: 'parked',
  reason: 'undeliverable',
  pending: 1,
  parkedAt: NOW,
} as const;

describe('when the store is too slow', () => {
  test('prepares are refused first, and verdicts are still taken', async () => {
    const durable = deferred();
    const { intake } = takingIn({
      insert: async (batch) => {
        await durable.promise;
        return batch.map(() => ({ kind: 'created' }));
      },
      decide: async (batch) => {
        await durable.promise;
        return batch.map(() => ({ kind: 'moved' }));
      },
    });
    const request = prepareRequest();
    const prepareOne = () => codeOf(intake.prepare({ ...request, id: currentId() }, {}));
    const decideOne = () => codeOf(intake.decide(verdictOn(currentId(), 'commit')));
    // One is in flight, the rest waits behind it.
    const calls = [prepareOne(), decideOne()];
    await whatIsReady();
    for (let count = 0; count < WAITING_PREPARES_MAX; count += 1) {
      calls.push(prepareOne(), decideOne());
    }
    await whatIsReady();
    expect(await Promise.race([prepareOne(), whatIsReady()])).toBe('BROKER_BUSY');
    calls.push(decideOne());
    durable.resolve();
    expect(new Set(await Promise.all(calls))).toEqual(new Set(['ok']));
    await intake.idle();
  });

  test('verdicts are bounded too, much higher', async () => {
    const durable = deferred();
    const { intake } = takingIn({
      decide: async (batch) => {
        await durable.promise;
        return batch.map(() => ({ kind: 'moved' }));
      },
    });
    const verdict = verdictOn(currentId(), 'commit');
    const calls = Array.from({ length: WAITING_VERDICTS_MAX }, (_, number) =>
      codeOf(intake.decide({ ...verdict, id: String(number) })),
    );
    expect(await codeOf(intake.decide(verdict))).toBe('BROKER_BUSY');
    durable.resolve();
    expect(new Set(await Promise.all(calls))).toEqual(new Set(['ok']));
  });
});
