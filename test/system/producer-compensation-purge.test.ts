import type { LocalDatabase } from '@escrowmq/database';
import {
  createCompensationHandler,
  ensureCompensationTable,
  purgeCompensations,
} from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import { insertBarrier } from '../../producer-sdk/src/local/barrier.js';
import { askWith, recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';
import { MARIADB, POSTGRES, SQLITE, type SuiteDatabase } from '../support/producer-databases.js';

const HOUR_MS = 60 * 60 * 1000;
const DAY_MS = 24 * HOUR_MS;
const LIMITS = { connectionTimeoutMs: 5_000, commitTimeoutMs: 5_000 };

describe.each([MARIADB, POSTGRES, SQLITE])('compensations of $name', ({ start, dialect }) => {
  const { logger } = recordingLogger();
  let suite: SuiteDatabase;
  let database: LocalDatabase<unknown>;

  beforeAll(async () => {
    suite = await start();
    ({ database } = suite.connect());
    await ensureCompensationTable(database);
  });
  afterAll(() => suite.close());

  /** An id as it was made that long ago. */
  function idOf(ageMs: number): string {
    const time = (Date.now() - ageMs).toString(16).padStart(12, '0');
    return `${time.slice(0, 8)}-${time.slice(8)}${uuidv7().slice(13)}`;
  }

  /** Has every row with this number be written that long ago. */
  async function age(message: number, ageMs: number): Promise<void> {
    const then = {
      mysql: `created_at - interval ${ageMs / 1000} second`,
      postgres: `created_at - interval '${ageMs / 1000} seconds'`,
      sqlite: `created_at - ${ageMs}`,
    };
    await suite.observe(
      `update escrow_compensated set created_at = ${then[dialect]} where message_number = ${message}`,
    );
  }

  async function done(ids: readonly string[], message: number, ageMs = 0): Promise<void> {
    const rowOf = (id: string) =>
      ({
        mysql: `(unhex(replace('${id}', '-', '')), 'stock', ${message}, utc_timestamp(3))`,
        postgres: `('${id}', 'stock', ${message}, clock_timestamp())`,
        sqlite: `('${id.replaceAll('-', '')}', 'stock', ${message}, ${Date.now()})`,
      })[dialect];
    await suite.observe(
      `insert into escrow_compensated (transaction_id, consumer_group, message_number, created_at)
       values ${ids.map(rowOf).join(', ')}`,
    );
    await age(message, ageMs);
  }

  const left = async (): Promise<number[]> => {
    const rows = await suite.observe(
      'select message_number from escrow_compensated order by message_number',
    );
    return rows.map((row) => Number(row.message_number));
  };

  test('go when they were done before the retention, and not sooner', async () => {
    const old = 7 * DAY_MS + HOUR_MS;
    await done([idOf(old)], 0, old);
    // Compensated late: the id is old, and the broker may not have heard of it yet.
    await done([idOf(old)], 1, 7 * DAY_MS - HOUR_MS);
    await done([idOf(7 * DAY_MS - HOUR_MS)], 2, 7 * DAY_MS - HOUR_MS);
    await done([idOf(0)], 3);
    expect(await purgeCompensations(database, 8 * DAY_MS)).toBe(0);
    expect(await purgeCompensations(database)).toBe(1);
    expect(await purgeCompensations(database)).toBe(0);
    expect(await left()).toEqual([1, 2, 3]);
  });

  test('go a thousand at a time until none is left', async () => {
    const old = 8 * DAY_MS;
    await done(
      Array.from({ length: 1_001 }, () => idOf(old)),
      7,
      old,
    );
    expect(await purgeCompensations(database)).toBe(1_001);
    expect(await left()).not.toContain(7);
  });

  test('are not run again once their row is gone', async () => {
    const old = 7 * DAY_MS + HOUR_MS;
    const id = idOf(old);
    let runs = 0;
    const handler = createCompensationHandler({
      signingSecret: SIGNING_SECRET,
      database,
      logger,
      async compensate() {
        runs += 1;
      },
    });
    const call = async (changes: object) => {
      const check = { consumerGroup: 'stock', message: 9, messageId: `${id}-9`, ...changes };
      return (await askWith(handler, id, { check })).status;
    };
    await database.session(
      (executor) => insertBarrier({ executor, dialect }, id, 'commit'),
      LIMITS,
    );
    expect(await call({})).toBe(200);
    await age(9, old);
    expect(await purgeCompensations(database)).toBe(1);
    const preparedAt = Date.now() - old;
    expect(await call({ preparedAt })).toBe(503);
    expect(await call({ preparedAt, sent: true })).toBe(503);
    expect(runs).toBe(1);
  });

  test('refuse to go while the broker may still call for them', async () => {
    for (const olderThanMs of [7 * DAY_MS - 1, 0, -1, Number.NaN]) {
      const purge = purgeCompensations(database, olderThanMs);
      await expect(purge).rejects.toMatchObject({ code: 'INVALID_CONFIGURATION' });
      await expect(purge).rejects.toThrow('barrierRetentionMs');
    }
  });
});
