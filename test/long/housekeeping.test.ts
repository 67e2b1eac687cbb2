import { spawn } from 'node:child_process';
import { once as onceEvent } from 'node:events';
import { fileURLToPath } from 'node:url';
import * as consumer from '@escrowmq/consumer';
import { type ConsumerEvent, ensureConsumedTable } from '@escrowmq/consumer';
import {
  createCheckHandler,
  ensureBarrierTable,
  ensureCompensationTable,
  ensureOutboxTable,
  type LocalDatabase,
  purgeBarrier,
  purgeCompensations,
  purgeOutbox,
  startHousekeeping,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import { minutesByHand } from '../support/minutes-by-hand.js';
import { ask, recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';
import { MARIADB, POSTGRES, SQLITE, type SuiteDatabase } from '../support/producer-databases.js';
import { freshMysqlDatabase } from '../support/servers.js';
import { until } from '../support/until.js';

const MINUTE_MS = 60 * 1000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** More than one portion. */
const OLD_ROWS = 1_200;

/** An id as it was made that long ago. */
function idOf(ageMs: number): string {
  const time = (Date.now() - ageMs).toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}${uuidv7().slice(13)}`;
}

describe.each([MARIADB, POSTGRES, SQLITE])('housekeeping in $name', ({ start, dialect }) => {
  let suite: SuiteDatabase;

  beforeAll(async () => {
    suite = await start();
    await ensureCompensationTable(suite.connect().database, { housekeeping: false });
    await ensureConsumedTable(suite.connect().database, { housekeeping: false });
  });
  afterAll(() => suite.close());
  afterEach(async () => {
    jest.restoreAllMocks();
    for (const table of ['barrier', 'outbox', 'compensated', 'consumed']) {
      await suite.observe(`delete from escrow_${table}`);
    }
  });

  const byDialect = (texts: Record<typeof dialect, string>) => texts[dialect];
  const idSql = (id: string) =>
    byDialect({
      mysql: `unhex('${id.replaceAll('-', '')}')`,
      postgres: `'${id}'`,
      sqlite: `'${id.replaceAll('-', '')}'`,
    });
  const agoSql = (ageMs: number) =>
    byDialect({
      mysql: `utc_timestamp(3) - interval ${ageMs / 1000} second`,
      postgres: `clock_timestamp() - interval '${ageMs / 1000} seconds'`,
      sqlite: `${Date.now() - ageMs}`,
    });
  const insert = (table: string, columns: string, rows: string[]) =>
    suite.observe(
      `insert into ${table} (${columns}) values ${rows.map((row) => `(${row})`).join(', ')}`,
    );

  const barrierRows = (ids: string[], ageMs: number) =>
    insert(
      'escrow_barrier',
      'transaction_id, decision, created_at',
      ids.map((id) => `${idSql(id)}, 'commit', ${agoSql(ageMs)}`),
    );
  const outboxRow = (state: string, ageMs: number) =>
    insert(
      'escrow_outbox',
      'transaction_id, state, due_at, created_at, producer_group, bytes, operation',
      [
        `${idSql(idOf(ageMs))}, '${state}', ${Date.now() - ageMs}, ${Date.now() - ageMs}, 'g', 0, '${state} ${ageMs / DAY_MS}'`,
      ],
    );
  const compensatedRow = (number: number, ageMs: number) =>
    insert('escrow_compensated', 'transaction_id, consumer_group, message_number, created_at', [
      `${idSql(idOf(ageMs))}, 'stock', ${number}, ${agoSql(ageMs)}`,
    ]);
  const consumedRow = (group: string, ageMs: number) =>
    insert('escrow_consumed', 'consumer_group, message_id, consumed_at', [
      `'${group}', '${idOf(ageMs)}-0', ${Date.now() - ageMs}`,
    ]);

  const values = async (table: string, column: string): Promise<string[]> => {
    const rows = await suite.observe(`select ${column} as found from escrow_${table}`);
    return rows.map(({ found }) => String(found)).sort();
  };
  const count = async (table: string): Promise<number> => (await values(table, '1')).length;

  /** What nobody may take, and what nobody needs. */
  async function fill(): Promise<{ young: string }> {
    const young = idOf(13 * DAY_MS);
    await barrierRows([young], 13 * DAY_MS);
    await barrierRows(
      Array.from({ length: OLD_ROWS }, () => idOf(15 * DAY_MS)),
      15 * DAY_MS,
    );
    for (const state of ['sent', 'void', 'unsent', 'parked']) {
      await outboxRow(state, 6 * DAY_MS);
      await outboxRow(state, 8 * DAY_MS);
    }
    await compensatedRow(1, 13 * DAY_MS);
    await compensatedRow(2, 15 * DAY_MS);
    await consumedRow('young', 36 * DAY_MS);
    await consumedRow('old', 38 * DAY_MS);
    return { young };
  }

  async function ensureAll(database: LocalDatabase<unknown>): Promise<void> {
    await ensureBarrierTable(database);
    await ensureOutboxTable(database);
    await ensureCompensationTable(database);
    await ensureConsumedTable(database);
  }

  /** Those that were the producer's and the consumer's loops of a database. */
  const stop = (database: LocalDatabase<unknown>) =>
    Promise.all([startHousekeeping(database).stop(), consumer.startHousekeeping(database).stop()]);

  test('two instances that ensure their tables delete old rows, and nothing that somebody may ask for', async () => {
    const said: string[] = [];
    jest.spyOn(console, 'warn').mockImplementation((text) => void said.push(String(text)));
    const { young } = await fill();
    const instances = [suite.connect().database, suite.connect().database];
    const clock = minutesByHand();
    for (const each of instances) await ensureAll(each);
    await ensureAll(instances[0]!);
    // One for each table and instance, and none in the first minutes.
    expect(clock.waitsMs()).toHaveLength(8);
    for (const each of clock.waitsMs()) expect(each).toBeGreaterThanOrEqual(5 * MINUTE_MS);

    const tables = ['barrier', 'outbox', 'compensated', 'consumed'];
    await clock.pass('both have looked at all tables', async () =>
      tables.every((table) => said.filter((line) => line.includes(`escrow_${table}`)).length === 2),
    );
    // The mark up to which the barrier was purged has come to it.
    const left = async () => (await Promise.all(tables.map(count))).join(' ');
    await clock.pass('the old rows are gone', async () => (await left()) === '2 6 1 1');
    expect(await suite.barrier(young)).toBe('commit');
    expect(await values('outbox', 'operation')).toEqual([
      'parked 6',
      'parked 8',
      'sent 6',
      'unsent 6',
      'unsent 8',
      'void 6',
    ]);
    expect(await values('compensated', 'message_number')).toEqual(['1']);
    expect(await values('consumed', 'consumer_group')).toEqual(['young']);
    // Once for each table and instance; nothing failed.
    expect(said).toHaveLength(2 * tables.length);
    expect(
      said.every((line) => line.includes('old rows') && line.includes('housekeeping: false')),
    ).toBe(true);
    for (const each of instances) await stop(each);
  });

  test('an hour later it purges again, by settings of its own, until it is stopped', async () => {
    const { logger, records } = recordingLogger();
    const events: ConsumerEvent[] = [];
    const clock = minutesByHand();
    const { database } = suite.connect();
    await ensureAll(database);
    const producing = startHousekeeping(database, {
      barrierKeptMs: 20 * DAY_MS,
      outboxKeptMs: DAY_MS,
      logger,
    });
    const consuming = consumer.startHousekeeping(database, {
      consumedKeptMs: 40 * DAY_MS,
      logger: (event) => void events.push(event),
    });
    await clock.pass('it was said', async () => records.length === 3 && events.length === 1);
    // Each of them waits for its hour: SQLite has one writer.
    await until('all wait', () => clock.waitsMs().length === 4);
    expect(events).toEqual([
      { event: 'housekeepingOn', table: 'escrow_consumed', keptMs: 40 * DAY_MS, everyMs: HOUR_MS },
    ]);
    await barrierRows([idOf(19 * DAY_MS)], 19 * DAY_MS);
    await barrierRows([idOf(21 * DAY_MS)], 21 * DAY_MS);
    await outboxRow('sent', 2 * DAY_MS);
    await consumedRow('young', 39 * DAY_MS);
    await consumedRow('old', 41 * DAY_MS);
    await clock.pass(
      'the second purge has been',
      async () =>
        (await count('outbox')) === 0 &&
        (await count('consumed')) === 1 &&
        (await count('barrier')) === 2,
    );
    await producing.stop();
    await consuming.stop();
    await barrierRows([idOf(21 * DAY_MS)], 21 * DAY_MS);
    expect(clock.waitsMs()).toEqual([]);
    expect(await count('barrier')).toBe(3);
    expect([records.length, events.length]).toEqual([3, 1]);
  });

  test('rows are kept for as long as a handler of the process answers by them, and a check of another process is told', async () => {
    const { logger } = recordingLogger();
    const handlerOf = (database: LocalDatabase<unknown>) =>
      createCheckHandler({
        signingSecret: SIGNING_SECRET,
        database,
        barrierRetentionMs: 30 * DAY_MS,
        logger,
      });
    const asked = (database: LocalDatabase<unknown>, id: string, ageMs: number) =>
      ask(handlerOf(database), id, { check: { preparedAt: Date.now() - ageMs } });
    const [own, other] = [suite.connect().database, suite.connect().database];
    const committed = idOf(20 * DAY_MS);
    await barrierRows([committed], 20 * DAY_MS);
    expect(await asked(own, committed, 20 * DAY_MS)).toBe('commit');
    jest.spyOn(console, 'warn').mockImplementation(() => {});
    const clock = minutesByHand();
    await ensureBarrierTable(own);
    await clock.pass('it was looked at', async () => clock.passed() > 2);
    expect(await suite.barrier(committed)).toBe('commit');

    // The other one wants rows for as long, and somebody who does not know of it purges.
    expect(await purgeBarrier(suite.connect().database, 14 * DAY_MS)).toBe(1);
    expect(await asked(other, committed, 20 * DAY_MS)).toBe('unknown');
    expect(await suite.barrier(committed)).toBeUndefined();
    expect(await asked(other, idOf(12 * DAY_MS), 12 * DAY_MS)).toBe('rollback');
    await stop(own);
  });

  // SQLite has one writer at a time, whoever it is.
  const isConcurrent = dialect !== 'sqlite';
  (isConcurrent ? test : () => {})(
    'a purge waits for no transaction that is open, and holds none up',
    async () => {
      await fill();
      const { database } = suite.connect();
      const limits = { connectionTimeoutMs: 5_000, commitTimeoutMs: 5_000 };
      const { database: others } = suite.connect();
      let release = () => {};
      const released = new Promise<void>((resolve) => {
        release = resolve;
      });
      const [open, beside] = [idOf(0), idOf(0)];
      const begun = new Promise<void>((begin, failed) => {
        others
          .transaction(async ({ tx }) => {
            await suite.send(
              tx,
              `insert into escrow_barrier (transaction_id, decision, created_at) values (${idSql(open)}, 'commit', ${agoSql(0)})`,
            );
            await suite.send(
              tx,
              `insert into escrow_consumed (consumer_group, message_id, consumed_at) values ('open', '${open}-0', 0)`,
            );
            await suite.send(
              tx,
              `insert into escrow_compensated (transaction_id, consumer_group, message_number, created_at) values (${idSql(open)}, 'open', 3, ${agoSql(0)})`,
            );
            await suite.send(
              tx,
              `insert into escrow_outbox (transaction_id, state, due_at, created_at, producer_group, bytes, operation) values (${idSql(open)}, 'unsent', 0, 0, 'g', 0, 'open')`,
            );
            begin();
            await released;
          }, limits)
          .catch(failed);
      });
      await begun;
      // Nothing of these ends while they wait for its locks.
      expect(await purgeBarrier(database, 14 * DAY_MS)).toBe(OLD_ROWS);
      expect(await purgeOutbox(database)).toBe(2);
      expect(await purgeCompensations(database, 14 * DAY_MS)).toBe(1);
      expect(await consumer.purgeConsumed(database)).toBe(1);
      await barrierRows([beside], 0);
      release();
      await until('the other is committed', async () => (await suite.barrier(open)) === 'commit');
    },
  );
});

// ---- processes

const CHILD = fileURLToPath(new URL('../support/housekeeping-child.mjs', import.meta.url));

async function ended(
  ...args: string[]
): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, [CHILD, ...args], { env: { PATH: process.env.PATH } });
  const heard = { out: '', err: '' };
  child.stdout.on('data', (chunk) => {
    heard.out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    heard.err += chunk;
  });
  // One that does not end by itself is ended, and says so by its signal.
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  const [code] = await onceEvent(child, 'close');
  clearTimeout(timer);
  return { code, ...heard };
}

test('a process ends by itself with housekeeping on: while it waits, and between two portions', async () => {
  const suite = await SQLITE.start();
  try {
    const time = Date.now() - 15 * DAY_MS;
    const rows = Array.from(
      { length: OLD_ROWS },
      () => `('${idOf(15 * DAY_MS).replaceAll('-', '')}', 'commit', ${time})`,
    );
    await suite.observe(
      `insert into escrow_barrier (transaction_id, decision, created_at) values ${rows.join(', ')}`,
    );
    expect(await ended(suite.url, 'waiting')).toEqual({ code: 0, out: `${OLD_ROWS}\n`, err: '' });
    const { code, out } = await ended(suite.url, 'purging');
    // One portion is gone, and the mark is there.
    expect([code, out]).toEqual([0, `${OLD_ROWS - 1_000 + 1}\n`]);
  } finally {
    await suite.close();
  }
});

test('a process ends once it has closed its pool, without a word', async () => {
  expect(await ended(await freshMysqlDatabase(), 'closing')).toEqual({ code: 0, out: '', err: '' });
});
