import { createCheckHandler, createProducer, purgeBarrier } from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';
import { MARIADB, POSTGRES, SQLITE, type SuiteDatabase } from '../support/producer-databases.js';

const HOUR_MS = 60 * 60 * 1000;
const DAY_MS = 24 * HOUR_MS;

describe.each([MARIADB, POSTGRES, SQLITE])('the barrier of $name', ({ start, dialect }) => {
  const { logger } = recordingLogger();
  let suite: SuiteDatabase;
  let broker: FakeBroker;

  beforeAll(async () => {
    suite = await start();
    broker = await startFakeBroker();
  });
  afterAll(async () => {
    await broker.close();
    await suite.close();
  });

  /** Commits a transaction, and has it happen that long ago. */
  async function committed(account: number, ageMs: number): Promise<string> {
    const producer = createProducer({ brokers: [broker.address], producerGroup: 'a', logger });
    const { database } = suite.connect();
    const { id } = await producer.transaction(database, { topic: 'user', data: 1 }, (tx) =>
      suite.send(tx, `insert into account (id) values (${account})`),
    );
    await producer.close();
    const digits = id.replaceAll('-', '');
    const row = { mysql: `unhex('${digits}')`, postgres: `'${id}'`, sqlite: `'${digits}'` };
    const then = {
      mysql: `created_at - interval ${ageMs / 1000} second`,
      postgres: `created_at - interval '${ageMs / 1000} seconds'`,
      sqlite: `created_at - ${ageMs}`,
    };
    await suite.observe(
      `update escrow_barrier set created_at = ${then[dialect]} where transaction_id = ${row[dialect]}`,
    );
    return id;
  }

  test('keeps every row that a check may still ask for, and its identity for ever', async () => {
    const old = await committed(1, 7 * DAY_MS + HOUR_MS);
    const kept = await committed(2, 7 * DAY_MS - HOUR_MS);
    const check = createCheckHandler({
      signingSecret: SIGNING_SECRET,
      database: suite.connect().database,
      logger,
    });
    const asked = (id: string, ageMs: number) =>
      ask(check, id, { check: { preparedAt: Date.now() - ageMs } });
    const { database } = suite.connect();
    expect(await purgeBarrier(database)).toBe(1);
    expect(await purgeBarrier(database)).toBe(0);

    // Nobody decides anew what was purged: a check that old is not answered from the barrier.
    expect(await suite.barrier(old)).toBeUndefined();
    expect(await asked(old, 7 * DAY_MS + HOUR_MS)).toBe('unknown');
    expect(await suite.barrier(old)).toBeUndefined();
    // What a check still answers for is there, with a day to spare for clocks that disagree.
    expect(await asked(kept, 6 * DAY_MS - HOUR_MS)).toBe('commit');
    expect(await suite.barrier('00000000-0000-0000-0000-000000000000')).toBe('rollback');
  });

  test('refuses to be purged of rows that a check may still ask for', async () => {
    const { database } = suite.connect();
    for (const olderThanMs of [2 * DAY_MS, 0, -1, Number.NaN]) {
      await expect(purgeBarrier(database, olderThanMs)).rejects.toMatchObject({
        code: 'INVALID_CONFIGURATION',
      });
    }
  });
});
