import {
  mysqlStatement,
  type PrivateMysql,
  startPrivateMysql,
  startTcpProxy,
  type TcpProxy,
} from '@escrowmq/local-servers';
import { CheckPolicy } from '@escrowmq/protocol';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createConnection } from 'mysql2/promise';
import { byProducer } from '../../broker/src/domain/transaction.js';
import { openMysqlDatabase } from '../../broker/src/store/mysql/database.js';
import { createStore } from '../../broker/src/store/store.js';
import { freshMysqlDatabase } from '../support/servers.js';
import {
  message,
  messages,
  newTransaction,
  type OpenStore,
  openMysqlForTest,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';
import { until } from '../support/until.js';

describe('a reply that is lost after the statement ran', () => {
  let proxy: TcpProxy;
  let behindProxy: OpenStore;
  let direct: OpenStore;

  beforeAll(async () => {
    const url = await freshMysqlDatabase();
    proxy = await startTcpProxy(url);
    direct = await openMysqlForTest(url);
    behindProxy = await openMysqlForTest(proxy.url);
  });
  afterAll(async () => {
    await behindProxy.store.close();
    await direct.store.close();
    await proxy.close();
  });

  /** The next statement with this text runs, and its answer never arrives. */
  const loseAnswerTo = (statement: string | RegExp) => proxy.cutNext(statement, 'after');
  const COMMIT = mysqlStatement('commit');

  test('a verdict is told apart from another by its token: it moved the row itself (F45)', async () => {
    const { store } = behindProxy;
    const moved = await prepare(direct.store);
    const repeated = await prepare(direct.store);
    const verdict = (id: string) => ({ id, decision: 'commit', decidedBy: byProducer }) as const;
    await direct.store.decide([verdict(repeated)], 0);
    const lost = loseAnswerTo("set state = 'committed'");
    const results = await store.decide([verdict(moved), verdict(repeated)], 0);
    await lost;
    expect(results.map(({ kind }) => kind)).toEqual(['moved', 'decided']);
  });

  test('a commit that brings data has moved its row, with that data', async () => {
    const { data, ...bare } = message();
    const open = [{ ...bare, dataAtCommit: true as const }];
    for (const statement of ["set state = 'committed'", COMMIT]) {
      const id = await prepare(direct.store, { messages: open });
      const supplied = { data: [{ number: 0, data: 'paid' }], bytesMax: 1_000 };
      const lost = loseAnswerTo(statement);
      const results = await behindProxy.store.decide(
        [{ id, decision: 'commit', decidedBy: byProducer, supplied }],
        0,
      );
      await lost;
      expect(results).toEqual([{ kind: 'moved' }]);
      const [committed] = await direct.store.readCommitted([id]);
      expect(committed?.messages).toEqual([{ ...bare, data: 'paid' }]);
    }
  });

  test('a prepare is there once, and answered as a repeat of itself (F45)', async () => {
    // Cut off inside its transaction the first attempt is undone; after the commit it stands.
    for (const [statement, expected] of [
      ['insert into escrow_transaction', 'created'],
      [COMMIT, 'repeated'],
    ] as const) {
      const transaction = newTransaction({ businessKeys: [`order:${expected}`] });
      const lost = loseAnswerTo(statement);
      const [result] = await behindProxy.store.insert([transaction]);
      await lost;
      expect(result?.kind).toBe(expected);
      const unsettled = await direct.store.unsettledOn(transaction.businessKeys);
      expect([...unsettled.values()].flat().map(({ id }) => id)).toEqual([transaction.id]);
    }
  });

  test('a parked row has one line of history for it', async () => {
    const id = await prepare(direct.store, {
      messages: messages(2),
      kind: { op: 'send', leaseMs: 0 },
    });
    const parkedAt = await direct.store.now();
    const to = { state: 'parked', reason: 'undeliverable', pending: 2, parkedAt } as const;
    const history = [{ at: parkedAt, event: 'parked', detail: {} } as const];
    const lost = loseAnswerTo(COMMIT);
    await behindProxy.store.saveForwards([{ id, done: 1, unrouted: 0, to, history }]);
    await lost;
    const view = await direct.store.view(id);
    expect(view).toMatchObject({ state: 'parked', history, forwarding: { failedAttempts: 1 } });
  });

  test('a purge is counted once', async () => {
    const id = await prepare(direct.store);
    await direct.store.decide([{ id, decision: 'rollback', decidedBy: byProducer }], 0);
    const before = (await direct.store.counts()).purged;
    const lost = loseAnswerTo(COMMIT);
    await behindProxy.store.purgeFinished({ olderThanMs: 0, limit: 100 });
    await lost;
    const after = (await direct.store.counts()).purged;
    expect(after.rolledBack).toBe(before.rolledBack + 1);
    expect((await direct.store.find([id])).get(id)?.kind).toBe('tombstone');
  });

  test('whoever creates a producer group learns its secret', async () => {
    const lost = loseAnswerTo('insert into escrow_producer_group');
    const saved = await behindProxy.store.saveGroup({
      name: 'accounts',
      checkUrls: [],
      compensationUrls: [],
      checkPolicy: CheckPolicy.parse({}),
      newSecret: 'whsec_1',
      rotate: false,
    });
    await lost;
    expect(saved).toMatchObject({ secretMade: true, group: { signingSecrets: ['whsec_1'] } });
  });
});

describe('a MySQL that goes away', () => {
  let mysql: PrivateMysql;

  beforeAll(async () => {
    mysql = await startPrivateMysql();
  });
  afterAll(() => mysql.remove());

  test('makes every call fail as STORE_UNAVAILABLE, and the same store works when it is back (F46)', async () => {
    const { store } = await openMysqlForTest(await mysql.createDatabase());
    const id = await prepare(store);
    const before = await rowOf(store, id);
    await mysql.kill();
    const verdict = { id, decision: 'commit', decidedBy: byProducer } as const;
    const calls = [
      store.now(),
      store.insert([newTransaction(), newTransaction({ businessKeys: ['order:1'] })]),
      store.decide([verdict], 0),
      store.claimDueChecks({ limit: 1, leaseMs: 1, exceptGroups: [] }),
      store.counts(),
    ];
    for (const result of await Promise.allSettled(calls)) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { code: 'STORE_UNAVAILABLE', message: expect.stringMatching(/ECONN|PROTOCOL/) },
      });
    }
    await mysql.restart();
    await until('the store answers again', () =>
      store.now().then(
        () => true,
        () => false,
      ),
    );
    expect(await rowOf(store, id)).toEqual(before);
    expect(await store.decide([verdict], 0)).toEqual([{ kind: 'moved' }]);
    await store.close();
  });

  test('finds work under way when it is restarted, and nothing is lost or done twice (F46)', async () => {
    const { store } = await openMysqlForTest(await mysql.createDatabase());
    const acknowledged: string[] = [];
    let stop = false;
    const worker = async () => {
      while (!stop) {
        const transaction = newTransaction({ businessKeys: ['k'] });
        const result = await store.insert([transaction]).catch(() => undefined);
        if (result?.[0]?.kind === 'created') acknowledged.push(transaction.id);
      }
    };
    const workers = [worker(), worker(), worker(), worker()];
    await until('some are acknowledged', () => acknowledged.length > 20);
    await mysql.kill();
    await mysql.restart();
    const soFar = acknowledged.length;
    await until('more are acknowledged', () => acknowledged.length > soFar + 20);
    stop = true;
    await Promise.all(workers);
    const found = await store.find(acknowledged);
    expect(found.size).toBe(acknowledged.length);
    await store.close();
  });
});

describe('U19: a MySQL that takes 1 MiB at once', () => {
  let mysql: PrivateMysql;

  beforeAll(async () => {
    mysql = await startPrivateMysql();
  });
  afterAll(() => mysql.remove());

  const MIB = 1024 * 1024;
  const allow = async (url: string, bytes: number) => {
    const connection = await createConnection(url);
    await connection.query(`set global max_allowed_packet = ${bytes}`);
    await connection.end();
  };
  const sized = (bytes: number) =>
    newTransaction({ messages: [{ ...message(), data: 'x'.repeat(bytes) }] });

  test('gets batches that fit, refuses alone what does not, and takes it once it is allowed', async () => {
    const url = await mysql.createDatabase();
    await allow(url, MIB);
    const { store, database } = await openMysqlForTest(url);
    const [warning] = await store.caveats({ transactionBytesMax: MIB });
    expect(warning).toMatch(/1048576 bytes at once.*ESCROW_TRANSACTION_BYTES_MAX/);
    expect(database.insertBytesMax()).toBe(MIB / 4);

    // Together three times what the server takes.
    const fitting = Array.from({ length: 15 }, () => sized(200_000));
    const large = sized(1_500_000);
    const batch = [...fitting.slice(0, 7), large, ...fitting.slice(7)];
    const results = await store.insert(batch);
    expect(results.map(({ kind }) => kind)).toEqual(
      batch.map((one) => (one === large ? 'refused' : 'created')),
    );
    expect(results[7]).toMatchObject({
      error: { code: 'BODY_TOO_LARGE', message: expect.stringContaining('max_allowed_packet') },
    });

    const { data, ...bare } = message();
    const open = await prepare(store, { messages: [{ ...bare, dataAtCommit: true }] });
    const plain = await prepare(store);
    const supplied = { data: [{ number: 0, data: 'x'.repeat(1_500_000) }], bytesMax: 8 * MIB };
    const verdicts = [open, plain].map(
      (id) => ({ id, decision: 'commit', decidedBy: byProducer }) as const,
    );
    const decided = await store.decide([{ ...verdicts[0]!, supplied }, verdicts[1]!], 0);
    expect(decided).toMatchObject([
      { kind: 'refused', refusal: { kind: 'notStorable', why: 'tooLarge' } },
      { kind: 'moved' },
    ]);

    await allow(url, 8 * MIB);
    expect(await store.insert([large])).toEqual([{ kind: 'created' }]);
    expect(await store.caveats({ transactionBytesMax: MIB })).toEqual([]);
    await store.close();
  });
});

test('a MySQL that stops answering costs each call its limit, not the whole pool', async () => {
  const url = await freshMysqlDatabase();
  await (await openMysqlForTest(url)).store.close();
  const proxy = await startTcpProxy(url);
  const store = createStore(openMysqlDatabase(proxy.url, 200), 'test');
  // More than the pool has connections.
  const calls = () => Promise.allSettled(Array.from({ length: 12 }, () => store.now()));
  expect((await calls()).map(({ status }) => status)).toEqual(Array(12).fill('fulfilled'));
  const connections = proxy.connections();
  proxy.impair({ kind: 'blackHole' });
  const frozen = calls();
  // The first attempts are cut off, then new connections are made, which answer.
  await until('the connections are given up', () => proxy.connections() >= connections + 10);
  proxy.heal();
  expect((await frozen).map(({ status }) => status)).toEqual(Array(12).fill('fulfilled'));
  await store.close();
  await proxy.close();
});
