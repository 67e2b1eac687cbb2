import {
  ensureConsumedTable,
  ensureLatestTable,
  latest,
  once,
  onceBatch,
  purgeConsumed,
} from '@escrowmq/consumer';
import {
  createCheckHandler,
  createOutboxRelay,
  createProducer,
  ensureOutboxTable,
  type OutboxRelay,
  type Producer,
  type ProducerOptions,
  purgeOutbox,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { newMessage } from '../consumer-layers/bench.js';
import { type FakeBroker, startFakeBroker } from '../fake-broker.js';
import { askWith, recordingLogger, SIGNING_SECRET } from '../producer-database.js';
import { type Engine, type EngineName, startEngine } from '../producer-layers/engine.js';
import type { Layer, OpenLayer } from '../producer-layers/layer.js';

/*
 * U03, U04: what the SDKs read from a service's database, through layers that are set to rename
 * columns, to give rows in another form, to turn values into others, or to speak in a character set
 * that lacks what is written. The essential calls, which must not notice.
 */

/** As much of a layer as the suite uses, opened with a hostile configuration. */
export interface HostileLayer<Tx> extends Pick<Layer<Tx>, 'engines'> {
  /** What is done to rows, for the name of the suite. */
  name: string;
  open(
    engine: EngineName,
    url: string,
  ): Promise<Pick<OpenLayer<Tx>, 'database' | 'insert' | 'close'>>;
}

/** What no one-byte character set has, nor MySQL's `utf8`. */
const SAYS = "it's 😀 and ✓ and é";

export function describeHostile<Tx>(layer: HostileLayer<Tx>): void {
  describe.each(layer.engines.map((name) => [name]))(`U03, U04: ${layer.name} on %s`, (name) => {
    const { logger } = recordingLogger();
    let engine: Engine;
    let open: Awaited<ReturnType<HostileLayer<Tx>['open']>>;
    let broker: FakeBroker;
    let closing: (Producer | OutboxRelay)[] = [];

    beforeAll(async () => {
      engine = await startEngine(name);
      open = await layer.open(name, engine.url);
      await ensureOutboxTable(open.database);
      await ensureConsumedTable(open.database);
      await ensureLatestTable(open.database);
    });
    afterAll(async () => {
      await open.close();
      await engine.close();
    });
    beforeEach(async () => {
      broker = await startFakeBroker();
      for (const table of ['account', 'escrow_latest', 'escrow_consumed']) {
        await engine.query(`delete from ${table}`);
      }
    });
    afterEach(async () => {
      for (const each of closing) await each.close();
      closing = [];
      await broker.close();
    });

    const settings = () => ({ brokers: [broker.address], producerGroup: 'accounts', logger });
    function producerOf(options: Partial<ProducerOptions> = {}): Producer {
      const made = createProducer({ ...settings(), ...options });
      closing.push(made);
      return made;
    }
    async function check(id: string) {
      const { database } = open;
      const handler = createCheckHandler({ signingSecret: SIGNING_SECRET, database, logger });
      const { status, body } = await askWith(handler, id);
      return { status, ...JSON.parse(body) };
    }

    test('a transaction commits, and its check answers with the very data it supplied', async () => {
      const result = await producerOf().transaction(
        open.database,
        { topic: 'user', dataAtCommit: true },
        async (tx, { supplyData }) => {
          await open.insert(tx, 1);
          supplyData({ says: SAYS });
        },
      );
      expect(result).toMatchObject({ outcome: 'committed', acknowledged: true });
      expect(await engine.accounts()).toEqual([1]);
      expect(await check(result.id)).toMatchObject({
        decision: 'commit',
        messageData: [{ number: 0, data: { says: SAYS } }],
      });
      const another = '0198f3c2-0000-7000-8000-000000000001';
      expect(await check(another)).toMatchObject({ decision: 'rollback' });
      expect(await check(another)).toMatchObject({ decision: 'rollback' });
    });

    test('a relay sends the very bytes that were committed, counts them, and purges', async () => {
      // Nobody listens there, so it is left to the relay.
      const alone = producerOf({
        brokers: ['http://127.0.0.1:1'],
        closeTimeoutMs: 1,
        outbox: true,
      });
      const { outcome } = await alone.transaction(
        open.database,
        { topic: 'user', data: SAYS },
        (tx) => open.insert(tx, 2),
      );
      expect(outcome).toBe('committed');
      const relay = createOutboxRelay({ ...settings(), database: open.database });
      closing.push(relay);
      expect(await relay.stats()).toMatchObject({ pending: 1, parked: 0 });
      await engine.query('update escrow_outbox set due_at = 0');
      expect(await relay.runOnce()).toEqual({ sent: 1, parked: 0, putOff: 0 });
      expect(broker.operations()).toMatchObject([{ op: 'send', messages: [{ data: SAYS }] }]);
      await engine.query('update escrow_outbox set due_at = 0');
      expect(await purgeOutbox(open.database)).toBe(1);
    });

    test('once and onceBatch apply each message once, and their rows are purged', async () => {
      const [first, second] = [newMessage(), newMessage()];
      const apply = (account: number) => (tx: Tx) => open.insert(tx, account);
      expect(await once(open.database, first, apply(1))).toBe('applied');
      expect(await once(open.database, first, apply(2))).toBe('duplicate');
      const result = await onceBatch(open.database, [first, second], (tx, fresh) => {
        expect(fresh).toEqual([second]);
        return open.insert(tx, 3);
      });
      expect(result).toEqual({ applied: [second.id], duplicates: [first.id] });
      expect(await engine.accounts()).toEqual([1, 3]);
      const old = newMessage({ id: '0188f3c2-0000-7000-8000-000000000001-0' });
      await once(open.database, old, apply(4));
      await engine.query('update escrow_consumed set consumed_at = 0');
      expect(await purgeConsumed(open.database)).toBe(1);
    });

    test('latest applies what is newer and tells keys apart that differ beyond one byte', async () => {
      const call = (key: string, at: number, message = newMessage()) =>
        latest(open.database, message, { key, at }, (tx) => open.insert(tx, at));
      const message = newMessage();
      expect(await call('order:😀', 5, message)).toBe('applied');
      expect(await call('order:😀', 5, message)).toBe('duplicate');
      expect(await call('order:😀', 4)).toBe('outdated');
      expect(await call('order:😀', 6)).toBe('applied');
      expect(await call('order:😁', 1)).toBe('applied');
      expect(await call('order:?', 2)).toBe('applied');
      expect(await engine.accounts()).toEqual([1, 2, 5, 6]);
    });
  });
}
