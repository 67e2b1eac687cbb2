import * as consumer from '@escrowmq/consumer';
import {
  ensureBarrierTable,
  ensureCompensationTable,
  ensureOutboxTable,
  purgeBarrier,
  purgeCompensations,
  purgeOutbox,
  startHousekeeping,
} from '@escrowmq/producer';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import type { LocalDatabase } from '../../database/src/database.js';
import { mysql2Layer, pgLayer } from '../support/consumer-layers/layer.js';
import { minutesByHand } from '../support/minutes-by-hand.js';
import { recordingLogger } from '../support/producer-database.js';
import { drizzleMysqlLayer, drizzlePostgresLayer } from '../support/producer-layers/drizzle.js';
import { type Engine, type EngineName, startEngine } from '../support/producer-layers/engine.js';
import { knexLayer } from '../support/producer-layers/knex.js';
import { kyselyLayer } from '../support/producer-layers/kysely.js';
import { prismaLayer } from '../support/producer-layers/prisma.js';
import { sequelizeLayer } from '../support/producer-layers/sequelize.js';
import { typeOrmLayer } from '../support/producer-layers/typeorm.js';
import { until } from '../support/until.js';

/* N15: every statement of the purges, through every layer, by two instances; and the end of a closed pool. */

const DAY_MS = 24 * 60 * 60 * 1000;
const ROWS = 1_100;
const OFF = { housekeeping: false };

interface KeptLayer {
  name: string;
  engines: readonly EngineName[];
  open(
    engine: EngineName,
    url: string,
  ): Promise<{ database: LocalDatabase<never>; close(): Promise<unknown> }>;
}

afterEach(() => void jest.restoreAllMocks());

describeLayer(mysql2Layer as unknown as KeptLayer);
describeLayer(pgLayer as unknown as KeptLayer);
describeLayer(knexLayer as unknown as KeptLayer);
describeLayer(kyselyLayer as unknown as KeptLayer);
describeLayer(drizzleMysqlLayer as unknown as KeptLayer);
describeLayer(drizzlePostgresLayer as unknown as KeptLayer);
describeLayer(typeOrmLayer as unknown as KeptLayer);
describeLayer(prismaLayer as unknown as KeptLayer);
describeLayer(sequelizeLayer as unknown as KeptLayer);

/** Old rows and a young one in each table, made a row at a time by one statement. */
async function fill({ dialect, query }: Engine): Promise<void> {
  const idOf = (ageMs: number) => {
    const time = (Date.now() - ageMs).toString(16).padStart(12, '0');
    return `${time.slice(0, 8)}-${time.slice(8)}${uuidv7().slice(13)}`;
  };
  for (const [ageMs, count] of [
    [40 * DAY_MS, ROWS],
    [DAY_MS / 2, 1],
  ] as const) {
    const ids = Array.from({ length: count }, () => idOf(ageMs));
    const then = Date.now() - ageMs;
    const id = (each: string) =>
      ({
        mysql: `unhex('${each.replaceAll('-', '')}')`,
        postgres: `'${each}'`,
        sqlite: `'${each.replaceAll('-', '')}'`,
      })[dialect];
    const ago = {
      mysql: `utc_timestamp(3) - interval ${ageMs / 1000} second`,
      postgres: `clock_timestamp() - interval '${ageMs / 1000} seconds'`,
      sqlite: `${then}`,
    }[dialect];
    const insert = (table: string, row: (each: string) => string) =>
      query(`insert into ${table} values ${ids.map((each) => `(${row(each)})`).join(', ')}`);
    await insert(
      'escrow_barrier (transaction_id, decision, created_at)',
      (each) => `${id(each)}, 'commit', ${ago}`,
    );
    await insert(
      'escrow_outbox (transaction_id, state, due_at, created_at, producer_group, bytes, operation)',
      (each) => `${id(each)}, 'sent', ${then}, ${then}, 'g', 0, ''`,
    );
    await insert(
      'escrow_compensated (transaction_id, consumer_group, message_number, created_at)',
      (each) => `${id(each)}, 'stock', 31, ${ago}`,
    );
    await insert(
      'escrow_consumed (consumer_group, message_id, consumed_at)',
      (each) => `'stock', '${each}-0', ${then}`,
    );
  }
}

function describeLayer(layer: KeptLayer): void {
  describe.each(layer.engines.map((name) => [name]))(`${layer.name} on %s`, (name) => {
    test('N15: two instances delete what is old, and a closed pool ends it without a word', async () => {
      const engine = await startEngine(name);
      const [open, other] = [
        await layer.open(name, engine.url),
        await layer.open(name, engine.url),
      ];
      const { database } = open;
      await ensureBarrierTable(database, OFF);
      await ensureOutboxTable(database, OFF);
      await ensureCompensationTable(database, OFF);
      await consumer.ensureConsumedTable(database, OFF);
      await fill(engine);

      // Layers wait for SQLite's lock with the whole process: there one after the other.
      const instances = name === 'SQLite' ? [database] : [database, other.database];
      const purges = instances.flatMap((each) => [
        purgeBarrier(each, 14 * DAY_MS),
        purgeOutbox(each),
        purgeCompensations(each, 14 * DAY_MS),
        consumer.purgeConsumed(each),
      ]);
      await Promise.all(purges);
      for (const [table, left] of Object.entries({
        barrier: 2,
        outbox: 1,
        compensated: 1,
        consumed: 1,
      })) {
        expect([table, await engine.query(`select 1 as found from escrow_${table}`)]).toEqual([
          table,
          Array(left).fill({ found: 1 }),
        ]);
      }

      const { logger, records } = recordingLogger();
      const clock = minutesByHand();
      const housekeeping = startHousekeeping(database, { logger });
      await clock.pass('it was said', async () => records.length === 3);
      await until('all wait', () => clock.waitsMs().length === 3);
      await open.close();
      // Prisma opens a closed client anew, so that nobody can tell.
      if (layer.name !== 'Prisma') {
        const before = clock.passed();
        await clock.pass('all have ended', async () => clock.passed() === before + 3);
      }
      await housekeeping.stop();
      expect(records).toHaveLength(3);
      jest.restoreAllMocks();
      await other.close();
      if (layer.name === 'Prisma') await open.close();
      await engine.close();
    });
  });
}
