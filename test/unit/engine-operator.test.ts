import { EscrowError, PARKED_REASONS, RESOLVE_ACTIONS, STATES } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { ClosingResult } from '../../broker/src/domain/closing.js';
import type { Found, Store, Verdict } from '../../broker/src/domain/ports.js';
import type { State } from '../../broker/src/domain/transaction.js';
import { createResolve } from '../../broker/src/engine/operator.js';
import { clockAt, currentId, NOW } from '../support/engine-fakes.js';

const WHO = { operator: 'ann', reason: 'the producer is gone' };

type Changes = Parameters<Store['resolve']>[0];

interface Options {
  moves?: boolean;
  refuse?: Error;
  /** How many compensations the transaction owes. */
  owed?: number;
  closing?: ClosingResult;
}

function resolving(found: Found | undefined, options: Options = {}) {
  const resolved: Changes[] = [];
  const verdicts: Verdict[] = [];
  const history: unknown[] = [];
  const endings: unknown[] = [];
  const closings: unknown[] = [];
  let woken = 0;
  const resolve = createResolve({
    store: {
      find: async () => new Map(found === undefined ? [] : [[found.id, found]]),
      async resolve(change) {
        resolved.push(change);
        return options.moves ?? true;
      },
      async endCompensations(end) {
        endings.push(end);
        const { id } = end;
        return Array.from({ length: options.owed ?? 0 }, (_, message) => ({
          id,
          message,
          consumerGroup: 'stock',
        }));
      },
      async closeUnsettled(closing) {
        closings.push(closing);
        return options.closing ?? { kind: 'unknown' };
      },
      appendHistory: async (entries) => void history.push(...entries),
    },
    async decide(verdict) {
      verdicts.push(verdict);
      if (options.refuse !== undefined) throw options.refuse;
      return { id: verdict.id, state: verdict.decision === 'commit' ? 'committed' : 'rolledBack' };
    },
    clock: clockAt(),
    wake: () => {
      woken += 1;
    },
  });
  return { resolve, resolved, verdicts, history, endings, closings, woken: () => woken };
}

const ID = currentId();
const rowIn = (state: State): Found => ({
  kind: 'row',
  id: ID,
  producerGroup: 'accounts',
  state,
  messageCount: 2,
});

type Row =
  | Exclude<State['state'], 'parked'>
  | `parked: ${Extract<State, { state: 'parked' }>['reason']}`;

const EXAMPLES: Record<Row, State> = {
  prepared: { state: 'prepared', checks: 3, unanswered: 2, dueAt: NOW + 5 },
  committed: { state: 'committed', pending: 0b10, attempts: 4, dueAt: NOW + 5 },
  forwarded: { state: 'forwarded', forwardedAt: 1 },
  rolledBack: { state: 'rolledBack', decidedAt: 1 },
  'parked: unresolved': { state: 'parked', reason: 'unresolved', parkedAt: 1 },
  'parked: undeliverable': { state: 'parked', reason: 'undeliverable', pending: 0b10, parkedAt: 1 },
};

const preparedAgain: State = { state: 'prepared', checks: 0, unanswered: 0, dueAt: NOW };

/** Where recheck and resend lead from each state; all others are refused. */
const MOVES: Record<'recheck' | 'resend', Partial<Record<Row, State>>> = {
  recheck: {
    prepared: { state: 'prepared', checks: 3, unanswered: 2, dueAt: NOW },
    'parked: unresolved': preparedAgain,
  },
  resend: {
    committed: { state: 'committed', pending: 0b10, attempts: 4, dueAt: NOW },
    'parked: undeliverable': { state: 'committed', pending: 0b10, attempts: 0, dueAt: NOW },
  },
};

const ROWS = Object.keys(EXAMPLES) as Row[];

test('the table has every state', () => {
  const parked = PARKED_REASONS.map((reason) => `parked: ${reason}`);
  const all = [...STATES.filter((state) => state !== 'parked'), ...parked];
  expect([...ROWS].sort()).toEqual(all.sort());
});

describe.each(['recheck', 'resend'] as const)('%s', (action) => {
  test.each(ROWS)('of what is %s', async (row) => {
    const from = EXAMPLES[row];
    const to = MOVES[action][row];
    const { resolve, resolved, woken, verdicts } = resolving(rowIn(from));
    const call = resolve(ID, { action, ...WHO });
    if (to === undefined) {
      await expect(call).rejects.toMatchObject({ code: 'STATE_CONFLICT' });
      await expect(call).rejects.toThrow(`${action} is for `);
      expect(resolved).toEqual([]);
      expect(woken()).toBe(0);
    } else {
      expect(await call).toEqual({ id: ID, state: to.state });
      const history = { at: NOW, event: 'resolve', detail: { action, ...WHO } };
      expect(resolved).toEqual([{ id: ID, from, to, history }]);
      expect(woken()).toBe(1);
    }
    expect(verdicts).toEqual([]);
  });

  test('of a row that changed meanwhile is refused', async () => {
    const [row] = Object.keys(MOVES[action]) as Row[];
    const { resolve, woken } = resolving(rowIn(EXAMPLES[row!]), { moves: false });
    const call = resolve(ID, { action, ...WHO });
    await expect(call).rejects.toMatchObject({ code: 'STATE_CONFLICT' });
    await expect(call).rejects.toThrow('changed while');
    expect(woken()).toBe(0);
  });

  test('of what is not there is refused', async () => {
    const call = resolving(undefined).resolve(ID, { action, ...WHO });
    await expect(call).rejects.toMatchObject({ code: 'TRANSACTION_NOT_FOUND' });
  });

  test('of what is purged is refused', async () => {
    const decision = { decision: 'commit', at: 1, by: 'producer' } as const;
    const stone: Found = { kind: 'tombstone', id: ID, producerGroup: 'accounts', decision };
    const call = resolving(stone).resolve(ID, { action, ...WHO });
    await expect(call).rejects.toMatchObject({ code: 'STATE_CONFLICT' });
  });
});

describe.each(['commit', 'rollback'] as const)('%s', (action) => {
  test.each(ROWS)(
    'of what is %s is decided as any verdict is, with name and reason',
    async (row) => {
      const { resolve, verdicts, resolved, history } = resolving(rowIn(EXAMPLES[row]));
      const { state } = await resolve(ID, { action, ...WHO });
      expect(state).toBe(action === 'commit' ? 'committed' : 'rolledBack');
      const decidedBy = { by: 'operator ann', reason: WHO.reason };
      expect(verdicts).toEqual([{ id: ID, decision: action, decidedBy }]);
      expect(history).toEqual([
        { id: ID, event: { at: NOW, event: 'resolve', detail: { action, ...WHO } } },
      ]);
      expect(resolved).toEqual([]);
    },
  );

  test('against the decision on record is refused, and not recorded as done', async () => {
    const refuse = new EscrowError('STATE_CONFLICT', 'decided already');
    const { resolve, history } = resolving(rowIn(EXAMPLES.forwarded), { refuse });
    await expect(resolve(ID, { action, ...WHO })).rejects.toBe(refuse);
    expect(history).toEqual([]);
  });
});

describe('compensated', () => {
  const action = 'compensated' as const;

  test.each(ROWS)('of what is %s ends what it owes, and moves nothing', async (row) => {
    const { resolve, endings, resolved, verdicts } = resolving(rowIn(EXAMPLES[row]), { owed: 2 });
    const { state } = EXAMPLES[row];
    expect(await resolve(ID, { action, ...WHO })).toEqual({ id: ID, state });
    const history = { at: NOW, event: 'resolve', detail: { action, ...WHO } };
    expect(endings).toEqual([{ id: ID, history }]);
    expect([...resolved, ...verdicts]).toEqual([]);
  });

  test('where nothing is owed is refused, and says so', async () => {
    const call = resolving(rowIn(EXAMPLES.forwarded)).resolve(ID, { action, ...WHO });
    await expect(call).rejects.toMatchObject({ code: 'STATE_CONFLICT' });
    await expect(call).rejects.toThrow('owes no compensation');
  });

  test('of what is not there, or purged, is refused', async () => {
    const decision = { decision: 'commit', at: 1, by: 'producer' } as const;
    const stone: Found = { kind: 'tombstone', id: ID, producerGroup: 'accounts', decision };
    for (const [found, code] of [
      [undefined, 'TRANSACTION_NOT_FOUND'],
      [stone, 'STATE_CONFLICT'],
    ] as const) {
      const { resolve, endings } = resolving(found, { owed: 1 });
      await expect(resolve(ID, { action, ...WHO })).rejects.toMatchObject({ code });
      expect(endings).toEqual([]);
    }
  });
});

describe('U05: close', () => {
  const action = 'close' as const;
  const closed = { at: 7, by: 'operator bob', reason: 'stock is shut down' };
  const closing = (result: ClosingResult) => resolving(undefined, { closing: result });

  test('is recorded by the store, and a repeat is told what is on record', async () => {
    const { resolve, closings, resolved, verdicts } = closing({ kind: 'closed', closed });
    expect(await resolve(ID, { action, ...WHO })).toEqual({ id: ID, state: 'forwarded', closed });
    expect(closings).toEqual([{ id: ID, ...WHO }]);
    expect([...resolved, ...verdicts]).toEqual([]);
  });

  test('of what was closed and is purged is a success as well', async () => {
    const { resolve } = closing({ kind: 'closed', closed, purged: true });
    expect(await resolve(ID, { action, ...WHO })).toMatchObject({ closed, purged: true });
  });

  test.each<[ClosingResult, string, string]>([
    [{ kind: 'unknown' }, 'TRANSACTION_NOT_FOUND', 'no transaction'],
    [{ kind: 'purged' }, 'STATE_CONFLICT', 'finished and purged'],
    ...(['prepared', 'committed', 'parked'] as const).map(
      (state): [ClosingResult, string, string] => [
        { kind: 'refused', why: { kind: 'open', state } },
        'STATE_CONFLICT',
        `is ${state}; close is for forwarded`,
      ],
    ),
    [
      { kind: 'refused', why: { kind: 'settled', state: 'forwarded' } },
      'STATE_CONFLICT',
      'has settled',
    ],
    [
      { kind: 'refused', why: { kind: 'settled', state: 'rolledBack' } },
      'STATE_CONFLICT',
      'is rolledBack',
    ],
    [
      { kind: 'refused', why: { kind: 'owes', compensations: 2 } },
      'STATE_CONFLICT',
      'owes 2 compensations',
    ],
  ])('%j is refused', async (result, code, says) => {
    const call = closing(result).resolve(ID, { action, ...WHO });
    await expect(call).rejects.toMatchObject({ code });
    await expect(call).rejects.toThrow(says);
  });
});

test('there is no action without a test', () => {
  const tested = ['commit', 'rollback', 'recheck', 'resend', 'close', 'compensated'];
  expect(RESOLVE_ACTIONS).toEqual(tested);
});
