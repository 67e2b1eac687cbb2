import { EscrowError, LIMITS, type PrepareRequest } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { Found, Inserted } from '../../broker/src/domain/ports.js';
import { currentId, NOW } from '../support/engine-fakes.js';
import {
  codeOf,
  forwardedRow,
  LEASE_MS,
  prepareRequest,
  record,
  sendRequest,
  takingIn,
  tombstone,
  verdictOn,
} from '../support/intake-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';
import { newId } from '../support/store-fixtures.js';

const HOUR_MS = 3_600_000;
/** The intake's own limits. */
const WAITING_PREPARES_MAX = 10_000;
const WAITING_VERDICTS_MAX = 50_000;

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
    expect(held.take(id)?.messages).toBe(inserted[0]!.messages);
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

  test('an id taken by other content is refused (F05)', async () => {
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

describe('prepare of messages that wait', () => {
  test('they are not held in memory: what may go is read after the commit', async () => {
    const { intake, inserted, held } = takingIn();
    const request = prepareRequest({ messages: [{ topic: 'user', data: 1, delayMs: 1 }] });
    await intake.prepare(request, {});
    expect(inserted[0]!.kind.op).toBe('prepare');
    expect(held.take(request.id!)).toBeUndefined();
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

  test.each([
    ['delays', [{ delayMs: 5_000 }, { delayMs: 300 }], 300],
    ['a time', [{ deliverAt: NOW + 60_000 }], 60_000],
    ['the earlier of both', [{ deliverAt: NOW + 60_000 }, { delayMs: 300 }], 300],
  ])(
    'one whose messages all wait is due with the first, and not in hand: %s',
    async (_, waits, dueInMs) => {
      const { intake, inserted, moved, held } = takingIn();
      const messages = waits.map((wait) => ({ topic: 'user', data: 1, ...wait }));
      const request = sendRequest({ messages });
      await intake.send(request, {});
      expect(inserted[0]!.kind).toEqual({ op: 'send', leaseMs: dueInMs, waits: true });
      expect(moved).toEqual([]);
      expect(held.take(request.id!)).toBeUndefined();
    },
  );

  test.each([
    ['one message does not wait', [{ delayMs: 300 }, {}]],
    ['the time of one is over', [{ deliverAt: NOW }, { delayMs: 300 }]],
  ])('where %s it is leased and forwarded, but read for it', async (_, waits) => {
    const { intake, inserted, moved, held } = takingIn();
    const messages = waits.map((wait) => ({ topic: 'user', data: 1, ...wait }));
    const request = sendRequest({ messages });
    await intake.send(request, {});
    expect(inserted[0]!.kind).toEqual({ op: 'send', leaseMs: LEASE_MS });
    expect(moved).toMatchObject([{ ids: [request.id] }]);
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
  test('a commit is forwarded when it is durable, not before', async () => {
    const durable = deferred();
    const { intake, moved } = takingIn({
      decide: async (batch) => {
        await durable.promise;
        return batch.map(() => ({ kind: 'moved' }));
      },
    });
    const id = currentId();
    const deciding = intake.decide(verdictOn(id, 'commit'));
    await whatIsReady();
    expect(moved).toEqual([]);
    durable.resolve();
    await deciding;
    expect(moved).toMatchObject([{ ids: [id] }]);
  });

  test('a rollback is never forwarded, nor is a commit of what is not there', async () => {
    const { intake, moved } = takingIn();
    await intake.decide(verdictOn(currentId(), 'rollback'));
    expect(moved).toEqual([]);
    const late = takingIn({
      decide: async (batch) => batch.map(() => ({ kind: 'unknown' })),
    });
    await late.intake.decide(verdictOn(currentId(), 'commit')).catch(() => undefined);
    expect(late.moved).toEqual([]);
  });
});

describe('when the store is too slow', () => {
  test('prepares are refused first, and verdicts are still taken (F78)', async () => {
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

  test('prepares that wait are bounded by their bytes as well', async () => {
    const durable = deferred();
    const { intake } = takingIn({
      insert: async (batch) => {
        await durable.promise;
        return batch.map(() => ({ kind: 'created' }));
      },
    });
    const data = 'x'.repeat(1024 * 1024);
    const prepareOne = () =>
      codeOf(intake.prepare(prepareRequest({ messages: [{ topic: 'user', data }] }), {}));
    const calls = [prepareOne()];
    await whatIsReady();
    for (let mebibyte = 1; mebibyte < 64; mebibyte += 1) calls.push(prepareOne());
    await whatIsReady();
    expect(await Promise.race([prepareOne(), whatIsReady()])).toBe('BROKER_BUSY');
    durable.resolve();
    expect(new Set(await Promise.all(calls))).toEqual(new Set(['ok']));
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
