import { describe, expect, test } from '@jest/globals';
import { NEVER } from '../../broker/src/store/sql.js';
import {
  decide,
  message,
  newTransaction,
  type OpenStore,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';
import { STATE_CASE_NAMES, STATE_CASES } from './state-cases.js';

/** What escaping, collations, encodings and C strings are known to spoil. */
const TEXTS = [
  'it\'s "quoted" `ticks`',
  'back\\slash \\n \\0 \\',
  "'; drop table escrow_transaction; --",
  '? :name ?? %s %_ $1',
  'é e\u0301 ß ﬁ Å',
  '漢字 العربية ไทย',
  '😀👩‍👩‍👧‍👦 𝒳',
  'nul \u0000 and controls \u0001\u001f\u007f\u0085',
  '\ufeffbom and \u2028 lines \u2029',
  'lone \ud800 surrogate',
  ' spaces around ',
  '',
];

const isWellFormed = (text: string) => !/\p{Cs}/u.test(text);

const TIME_COLUMNS = [
  'due_at',
  'prepared_at',
  'finished_at',
  'settled_at',
  'decided_at',
  'unanswered_since',
  'parked_at',
];

export function valuesContract(opened: () => OpenStore): void {
  describe('what goes in comes out', () => {
    test('texts survive in data, headers, keys and context, character by character', async () => {
      const { store } = opened();
      const keys = TEXTS.filter((text) => text !== '' && isWellFormed(text));
      const content = {
        businessKeys: keys.slice(0, 16),
        checkContext: TEXTS.filter(isWellFormed).join(' | '),
        trace: { traceparent: TEXTS[2] ?? '', tracestate: TEXTS[1] ?? '' },
        messages: TEXTS.map((text) =>
          message({ routingKey: text, data: { [text]: text }, headers: { text } }),
        ),
      };
      const id = await prepare(store, {
        ...content,
        kind: { op: 'send', leaseMs: 0 },
      });
      const { due } = await store.claimDueForwards({ limit: 1, bytesMax: 1, leaseMs: 1_000 });
      expect(due).toEqual([expect.objectContaining({ id, ...content })]);
      for (const key of keys) {
        expect((await store.unsettledOn([key])).get(key)).toHaveLength(1);
        expect((await store.search({ limit: 1, businessKey: key })).transactions).toHaveLength(1);
      }
    });

    test('any JSON and any number survives', async () => {
      const { store } = opened();
      const data = [0, -0.5, 1e308, 5e-324, 2 ** 53, -(2 ** 53), null, true, [], {}, [[{}]], ''];
      const id = await prepare(store, {
        kind: { op: 'send', leaseMs: 0 },
        messages: [message({ data }), message({ data: undefined, dataBase64: 'AP8A/w==' })],
      });
      const [read] = await store.readCommitted([id]);
      expect(read?.messages).toEqual([
        message({ data }),
        { ...message({ dataBase64: 'AP8A/w==' }), data: undefined },
      ]);
    });

    test('a transaction of the largest size is kept whole', async () => {
      const { store } = opened();
      const messages = [message({ data: '😀'.repeat(250_000) })];
      const id = await prepare(store, { messages, kind: { op: 'send', leaseMs: 0 } });
      expect((await store.readCommitted([id]))[0]?.messages).toEqual(messages);
    });

    test('who decided and why survives, at its longest', async () => {
      const { store } = opened();
      for (const [by, reason] of [
        [`check https://a.example/${'x'.repeat(2_000)}`, '漢'.repeat(500)],
        [`operator ${'😀'.repeat(50)}`, TEXTS[0]],
        ['producer', undefined],
      ] as const) {
        const id = await prepare(store);
        const decidedBy = { by, ...(reason === undefined ? {} : { reason }) };
        await store.decide([{ id, decision: 'rollback', decidedBy }], 0);
        const expected = { decision: 'rollback', at: expect.any(Number), ...decidedBy };
        expect((await rowOf(store, id)).decision).toEqual(expected);
        await store.purgeFinished({ olderThanMs: 0, limit: 10 });
        expect((await store.find([id])).get(id)?.decision).toEqual(expected);
      }
    });

    test('two contents that differ only where collations do not look are different (F21)', async () => {
      const { store } = opened();
      const transaction = newTransaction({ messages: [message({ data: 'abc' })] });
      await store.insert([transaction]);
      for (const data of ['ABC', 'abc ', 'äbc']) {
        const other = newTransaction({ id: transaction.id, messages: [message({ data })] });
        expect(await store.insert([other])).toEqual([{ kind: 'different' }]);
      }
    });
  });

  describe('times', () => {
    test("the store's clock tells integer UTC milliseconds", async () => {
      const { store } = opened();
      const before = Date.now();
      const now = await store.now();
      expect(Number.isInteger(now)).toBe(true);
      // One machine in tests: the clocks differ by rounding only.
      expect(now).toBeGreaterThanOrEqual(before - 5);
      expect(now).toBeLessThanOrEqual(Date.now() + 5);
    });

    test('every time in every row is an integer', async () => {
      const { store, database } = opened();
      for (const state of STATE_CASE_NAMES) await STATE_CASES[state](store);
      const id = await prepare(store);
      await decide(store, id, 'commit');
      await store.claimDueForwards({ limit: 10, bytesMax: 1e6, leaseMs: 1_000 });
      const rows = await database.all<Record<string, unknown>>(
        `select ${TIME_COLUMNS.join(', ')} from escrow_transaction`,
      );
      const times = rows.flatMap((row) => Object.values(row)).filter((time) => time !== NEVER);
      expect(times.length).toBeGreaterThan(20);
      expect(times.filter((time) => !Number.isInteger(time))).toEqual([]);
    });
  });
}
