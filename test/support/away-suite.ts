import { setTimeout as pause } from 'node:timers/promises';
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
  createProducer,
  type EnlistedTransaction,
  ensureBarrierTable,
  ensureCompensationTable,
  ensureOutboxTable,
  purgeBarrier,
  purgeCompensations,
  purgeOutbox,
} from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  type KitProxy,
  startDatabaseProxy,
} from '../../producer-sdk/src/fault-kit/database-proxy.js';
import { newMessage } from './consumer-layers/bench.js';
import { startFakeBroker } from './fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from './producer-database.js';
import { type Engine, type EngineName, startEngine } from './producer-layers/engine.js';
import type { Layer, OpenLayer } from './producer-layers/layer.js';
import { until } from './until.js';

/*
 * N13: the service's own database goes away under its pool. Whatever is called then ends as the docs
 * say, on every layer.
 */

type AwayLayer<Tx> = Pick<Layer<Tx>, 'name' | 'engines'> & {
  open(
    engine: EngineName,
    url: string,
  ): Promise<
    Pick<OpenLayer<Tx>, 'database' | 'insert' | 'close'> &
      Partial<Pick<OpenLayer<Tx>, 'enlistable' | 'begin'>>
  >;
};

/** Drizzle on pg keeps a connection whose BEGIN failed for ever, and its pool waits for it. */
const withoutLeaks = (closing: Promise<unknown>) => Promise.race([closing, pause(CLOSE_MS_MAX)]);
const CLOSE_MS_MAX = 3_000;

const message = { topic: 'user', data: 1 };
const LIMITS = { connectionTimeoutMs: 2_000, commitTimeoutMs: 2_000 };

export function describeAway<Tx>(layer: AwayLayer<Tx>): void {
  const engines = layer.engines.filter((name) => name !== 'SQLite');
  describe.each(engines.map((name) => [name]))(`N13: ${layer.name} on %s that is away`, (name) => {
    const { logger } = recordingLogger();
    let engine: Engine;
    let proxy: KitProxy;
    let open: Awaited<ReturnType<AwayLayer<Tx>['open']>>;

    beforeAll(async () => {
      engine = await startEngine(name);
      const url = new URL(engine.url);
      proxy = await startDatabaseProxy({ host: url.hostname, port: Number(url.port) });
      url.hostname = proxy.host;
      url.port = String(proxy.port);
      open = await layer.open(name, url.href);
      await ensureBarrierTable(open.database);
    });
    afterAll(async () => {
      await withoutLeaks(open.close());
      await proxy.close();
      await engine.close();
    });

    test('every call says DATABASE_UNAVAILABLE, in whole milliseconds, and works again afterwards', async () => {
      const { database } = open;
      const broker = await startFakeBroker();
      const settings = { brokers: [broker.address], producerGroup: 'accounts', logger };
      const producer = createProducer({ ...settings, connectionTimeoutMs: 2_000 });
      const insert = (id: number) => (tx: Tx) => open.insert(tx, id);
      try {
        // The pool has a connection when it happens.
        await producer.transaction(database, message, insert(1));
        proxy.setReachable(false);
        const options = { key: 'order:7', at: 1, ...LIMITS };
        const calls: Record<string, Promise<unknown>> = {
          transaction: producer.transaction(database, message, insert(2)),
          once: once(database, newMessage(), insert(3), LIMITS),
          latest: latest(database, newMessage(), options, insert(4)),
          onceBatch: onceBatch(database, [newMessage()], insert(5), LIMITS),
          ensureBarrierTable: ensureBarrierTable(database),
          ensureOutboxTable: ensureOutboxTable(database),
          ensureCompensationTable: ensureCompensationTable(database),
          ensureConsumedTable: ensureConsumedTable(database),
          ensureLatestTable: ensureLatestTable(database),
          purgeBarrier: purgeBarrier(database),
          purgeOutbox: purgeOutbox(database),
          purgeCompensations: purgeCompensations(database),
          purgeConsumed: purgeConsumed(database),
        };
        const said = await Promise.all(
          Object.entries(calls).map(async ([call, work]) => {
            const error = await work.then(
              () => undefined,
              (thrown) => thrown,
            );
            return { call, code: error?.code, message: String(error?.message ?? error) };
          }),
        );
        for (const each of said) {
          expect(each).toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
          expect(each.message).not.toMatch(/\d\.\d+ ms/);
        }
        const handler = createCheckHandler({ signingSecret: SIGNING_SECRET, database, logger });
        expect(await ask(handler, '0198f3c2-0000-7000-8000-000000000001')).toBe('unknown');
        proxy.setReachable(true);
        // Pools may hand out what was being opened when the way was closed.
        await until('it serves again', () =>
          ensureConsumedTable(database).then(
            () => true,
            () => false,
          ),
        );
        expect(await once(database, newMessage(), insert(6))).toBe('applied');
        expect(await engine.accounts()).toEqual([1, 6]);
      } finally {
        proxy.setReachable(true);
        await producer.close();
        await broker.close();
      }
    });

    test('an enlist on a connection that is lost says so too', async () => {
      const { begin, enlistable } = open;
      if (begin === undefined || enlistable === undefined) return;
      const producer = createProducer({
        brokers: ['http://127.0.0.1:1'],
        producerGroup: 'accounts',
        closeTimeoutMs: 1,
        logger,
      });
      let enlisting: Promise<EnlistedTransaction> | undefined;
      try {
        const work = begin(async (tx) => {
          await open.insert(tx, 7);
          proxy.setReachable(false);
          enlisting = producer.enlist(enlistable(tx), message);
          await enlisting;
        });
        await expect(work).rejects.toBeDefined();
        await expect(enlisting).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
      } finally {
        proxy.setReachable(true);
        await producer.close();
      }
    });
  });
}
