import { EscrowError } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import {
  SERVER_ERRORS,
  type ServerErrorClass,
} from '../../broker/src/store/mysql/server-errors.js';
import { type MysqlErrorProxy, startMysqlErrorProxy } from '../support/mysql-error-proxy.js';
import { freshMysqlDatabase } from '../support/servers.js';
import { newTransaction, type OpenStore, openMysqlForTest } from '../support/store-fixtures.js';
import { until } from '../support/until.js';

/*
 * X2: each error of the table, in the place of a real server's answer to a prepare.
 */

let proxy: MysqlErrorProxy;
let behind: OpenStore;
let direct: OpenStore;

beforeAll(async () => {
  const url = await freshMysqlDatabase();
  direct = await openMysqlForTest(url);
  proxy = await startMysqlErrorProxy(url);
  behind = await openMysqlForTest(proxy.url);
});
afterEach(() => proxy.heal());
afterAll(async () => {
  await behind.store.close();
  await direct.store.close();
  await proxy.close();
});

const INSERT = /insert into escrow_transaction/;

const numbersOf = (...classes: ServerErrorClass[]) =>
  [...SERVER_ERRORS].filter(([, entry]) => classes.includes(entry.class)).map(([number]) => number);

/** One prepare that meets the error so often, and what became of it. */
async function meeting(errno: number, times?: number) {
  const transaction = newTransaction();
  const before = proxy.ended();
  proxy.fail(INSERT, errno, times === undefined ? {} : { times });
  const [settled] = await Promise.allSettled([behind.store.insert([transaction])]);
  const dropped = () => proxy.ended() - before;
  const attempts = proxy.failed();
  proxy.heal();
  const stored = (await direct.store.find([transaction.id])).has(transaction.id);
  return { settled, dropped, attempts, stored };
}

const created = { status: 'fulfilled', value: [{ kind: 'created' }] };
const rejectedWith = (reason: object) => ({ status: 'rejected', reason });

describe('X2: what a server says to a statement once', () => {
  test.each(numbersOf('runAgain'))('%i: run again on the same connection', async (errno) => {
    const { settled, dropped, attempts, stored } = await meeting(errno, 1);
    expect(settled).toMatchObject(created);
    expect({ attempts, stored }).toEqual({ attempts: 1, stored: true });
    expect(dropped()).toBe(0);
  });

  test.each(numbersOf('lost', 'unavailable'))(
    '%i: the connection is dropped, and the statement run again on another',
    async (errno) => {
      const { settled, dropped, attempts, stored } = await meeting(errno, 1);
      expect(settled).toMatchObject(created);
      expect({ attempts, stored }).toEqual({ attempts: 1, stored: true });
      await until('the connection has ended', () => dropped() === 1);
    },
  );
});

describe('X2: what a server goes on saying', () => {
  test.each([
    [1205, 6, /too busy/],
    [3101, 6, /too busy/],
    [2013, 3, /ended the connection/],
    [4031, 3, /ended the connection/],
    [1290, 3, /is read-only/],
    [1836, 3, /is read-only/],
    [1047, 3, /cluster that can not serve now/],
    [3100, 3, /cluster that can not serve now/],
    [1114, 3, /is full/],
    [1040, 3, /at its limits/],
    [1105, 3, /a fault of its own/],
  ])(
    '%i: after %i attempts STORE_UNAVAILABLE, retryable, with a word',
    async (errno, max, says) => {
      const { settled, attempts, stored } = await meeting(errno);
      const message = expect.stringMatching(says);
      expect(settled).toMatchObject(
        rejectedWith({ code: 'STORE_UNAVAILABLE', retryable: true, message }),
      );
      expect({ attempts, stored }).toEqual({ attempts: max, stored: false });
    },
  );

  test.each(numbersOf('refused'))('%i: a refusal is not asked again', async (errno) => {
    const { settled, attempts } = await meeting(errno);
    const message = expect.stringContaining('refuses: error ');
    expect(settled).toMatchObject(rejectedWith({ code: 'STORE_UNAVAILABLE', message }));
    expect(attempts).toBe(1);
  });

  test.each([1064, 1054, 1146, 1210, 1366 + 10_000])(
    '%i: what is not in the table is a mistake of ours, told as it is',
    async (errno) => {
      const { settled, dropped, attempts } = await meeting(errno);
      expect(settled).toMatchObject(rejectedWith({ errno }));
      expect((settled as PromiseRejectedResult).reason).not.toBeInstanceOf(EscrowError);
      expect({ dropped: dropped(), attempts }).toEqual({ dropped: 0, attempts: 1 });
    },
  );

  test.each(numbersOf('tooLarge'))('%i: too large, refused alone with 413', async (errno) => {
    const { settled } = await meeting(errno);
    expect(settled).toMatchObject({
      status: 'fulfilled',
      value: [{ kind: 'refused', error: { code: 'BODY_TOO_LARGE', retryable: false } }],
    });
  });

  test.each(numbersOf('badValue'))(
    '%i: a value that it refuses is refused alone',
    async (errno) => {
      const { settled } = await meeting(errno);
      expect(settled).toMatchObject({
        status: 'fulfilled',
        value: [{ kind: 'refused', error: { name: 'RowRefused' } }],
      });
    },
  );
});

test('X2: a Galera write set that is too large is told by 1180, and is too large', async () => {
  proxy.fail(INSERT, 1180, { message: 'Got error 90 "Message too long" during COMMIT' });
  const [result] = await behind.store.insert([newTransaction()]);
  expect(result).toMatchObject({ kind: 'refused', error: { code: 'BODY_TOO_LARGE' } });
});

test('X2: a session that can not be set up is not used, and says why', async () => {
  const own = await startMysqlErrorProxy(proxy.url);
  const { store } = await openMysqlForTest(own.url);
  own.fail(/select|set session/, 1047);
  await expect(store.now()).rejects.toMatchObject({
    code: 'STORE_UNAVAILABLE',
    message: expect.stringContaining('cluster that can not serve now'),
  });
  own.heal();
  await store.now();
  await store.close();
  await own.close();
});

test('U19: what the server does not take of one transaction does not harm the other nine', async () => {
  const batch = Array.from({ length: 10 }, () => newTransaction());
  const bad = batch[6]!;
  const bytes = Buffer.from(bad.id.replaceAll('-', ''), 'hex').toString('hex');
  proxy.fail(new RegExp(`insert into escrow_transaction[\\s\\S]*${bytes}`), 1153);
  const results = await behind.store.insert(batch);
  expect(results.map(({ kind }) => kind)).toEqual(
    batch.map((one) => (one === bad ? 'refused' : 'created')),
  );
});
