import {
  createOutboxRelay,
  createProducer,
  ensureOutboxTable,
  type OutboxRelay,
  type Producer,
  purgeOutbox,
} from '@escrowmq/producer';
import { EscrowError } from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { drizzleMysqlLayer, drizzlePostgresLayer } from '../support/producer-layers/drizzle.js';
import { type Engine, type EngineName, startEngine } from '../support/producer-layers/engine.js';
import { knexLayer } from '../support/producer-layers/knex.js';
import { kyselyLayer } from '../support/producer-layers/kysely.js';
import type { Layer, OpenLayer } from '../support/producer-layers/layer.js';
import { prismaLayer } from '../support/producer-layers/prisma.js';
import { sequelizeLayer } from '../support/producer-layers/sequelize.js';
import { typeOrmLayer } from '../support/producer-layers/typeorm.js';
import { until } from '../support/until.js';

/* Every statement of the outbox, through every query builder and ORM, on every engine it works with. */

describeOutbox(knexLayer);
describeOutbox(kyselyLayer);
describeOutbox(drizzleMysqlLayer);
describeOutbox(drizzlePostgresLayer);
describeOutbox(typeOrmLayer);
describeOutbox(prismaLayer);
describeOutbox(sequelizeLayer);

function describeOutbox<Tx>(layer: Layer<Tx>): void {
  describe.each(layer.engines.map((name) => [name]))(`an outbox by ${layer.name} on %s`, (name) => {
    const { logger } = recordingLogger();
    let engine: Engine;
    let open: OpenLayer<Tx>;
    let broker: FakeBroker;
    let producer: Producer;
    let relay: OutboxRelay;

    beforeEach(async () => {
      engine = await startEngine(name as EngineName);
      open = await layer.open(name as EngineName, engine.url);
      await ensureOutboxTable(open.database);
      broker = await startFakeBroker();
      const settings = { brokers: [broker.address], producerGroup: 'accounts', logger };
      producer = createProducer({ ...settings, outbox: true, settleTimeoutMs: 1_500 });
      relay = createOutboxRelay({ ...settings, database: open.database });
    });
    afterEach(async () => {
      await relay.close();
      await producer.close();
      await broker.close();
      await open.close();
      await engine.close();
    });

    const register = (account: number, by = producer) =>
      by.transaction(open.database, { topic: 'user', data: `it's ✓ ${account}` }, (tx) =>
        open.insert(tx, account),
      );
    const states = async () => {
      const rows = await engine.query('select state from escrow_outbox order by transaction_id');
      return rows.map(({ state }) => state);
    };
    const makeDue = () =>
      engine.query("update escrow_outbox set due_at = 0 where state in ('unsent', 'sent')");

    test('messages are sent with the transaction, and are gone without it', async () => {
      const { outcome } = await register(1);
      expect(outcome).toBe('committed');
      const failed = producer.transaction(open.database, { topic: 'user', data: 2 }, async (tx) => {
        await open.insert(tx, 2);
        throw new Error('mine');
      });
      await expect(failed).rejects.toThrow('mine');
      await until('it is marked', async () => (await states())[0] === 'sent');
      expect(broker.operations()).toMatchObject([{ op: 'send', messages: [{ data: "it's ✓ 1" }] }]);
      expect(await states()).toEqual(['sent']);
      expect(await engine.accounts()).toEqual([1]);
    });

    test('a relay claims, sends, parks, puts off and counts', async () => {
      const refusals: Record<string, EscrowError> = {};
      // Nobody listens there, and closing does not wait.
      const brokers = ['http://127.0.0.1:1'];
      const settings = { brokers, producerGroup: 'accounts', closeTimeoutMs: 1, logger };
      const alone = createProducer({ ...settings, outbox: true });
      const busy = new EscrowError('BROKER_BUSY', 'later');
      broker.refuse = () => busy;
      for (const account of [1, 2, 3]) {
        const { id } = await register(account, alone);
        if (account === 1) refusals[id] = new EscrowError('CONTENT_CONFLICT', 'not this one');
      }
      await alone.close();
      await makeDue();
      expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 3 });
      expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
      expect(await relay.stats()).toMatchObject({ pending: 3, parked: 0 });
      broker.refuse = ({ id }) => refusals[id];
      await makeDue();
      expect(await relay.runOnce()).toEqual({ sent: 2, parked: 1, putOff: 0 });
      expect(await states()).toEqual(['parked', 'sent', 'sent']);
      expect(await relay.stats()).toEqual({ pending: 0, oldestMs: 0, parked: 1, sent: 2 });
      broker.refuse = () => undefined;
      expect(await relay.retryParked()).toBe(1);
      expect(await relay.runOnce()).toEqual({ sent: 1, parked: 0, putOff: 0 });
      await makeDue();
      expect(await purgeOutbox(open.database)).toBe(3);
      expect(await states()).toEqual([]);
    });

    test('supplied data, enlisting and settling reach the same row', async () => {
      let settle = async () => ({ outcome: '' });
      await open.begin(async (tx) => {
        const messages = { topic: 'user', dataAtCommit: true as const };
        const enlisted = await producer.enlist(open.enlistable(tx), messages);
        await open.insert(tx, 1);
        enlisted.supplyData({ userId: 1 });
        await enlisted.verify();
        settle = () => enlisted.settle(open.database);
      });
      expect((await settle()).outcome).toBe('committed');
      await until('it is marked', async () => (await states())[0] === 'sent');
      expect(broker.operations()).toMatchObject([
        { op: 'send', messages: [{ data: { userId: 1 } }] },
      ]);

      const rolledBack = open.begin(async (tx) => {
        const enlisted = await producer.enlist(open.enlistable(tx), { topic: 'user', data: 2 });
        settle = () => enlisted.settle(open.database);
        throw new Error('mine');
      });
      await expect(rolledBack).rejects.toThrow('mine');
      expect((await settle()).outcome).toBe('rolledBack');
      expect((await states()).sort()).toEqual(['sent', 'void']);
    });
  });
}
