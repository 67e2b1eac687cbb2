import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { mysqlStatement, startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import {
  createCheckHandler,
  createOutboxRelay,
  createProducer,
  type Producer,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Dialect } from '../../database/src/database.js';
import { type FakeBroker, startFakeBroker } from './fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from './producer-database.js';
import type { DatabaseKind, SuiteConnections, SuiteDatabase } from './producer-databases.js';
import { MODES } from './producer-modes.js';
import { until } from './until.js';

const CHILD = fileURLToPath(new URL('./producer-child.mjs', import.meta.url));

/** A producer that is killed at a step, and what a check makes of what it left. */
export function describeProducerCrash(kind: DatabaseKind): void {
  describe(`a producer on ${kind.name} that is killed`, () => {
    const { logger } = recordingLogger();
    let suite: SuiteDatabase;
    let broker: FakeBroker;
    let child: ChildProcess | undefined;

    beforeEach(async () => {
      suite = await kind.start();
      broker = await startFakeBroker();
    });
    afterEach(async () => {
      child?.kill('SIGKILL');
      await broker.close();
      await suite.close();
    });

    function startChild(end: 'stay' | 'end', mode: 'prepared' | 'outbox'): ChildProcess {
      const args = [kind.dialect, suite.url, broker.address, end, mode];
      child = spawn(process.execPath, [CHILD, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
      return child;
    }

    async function untilInserted({ stdout }: ChildProcess): Promise<void> {
      if (stdout === null) throw new Error('the child has no output');
      const [said] = await once(stdout, 'data');
      expect(String(said)).toBe('inserted\n');
    }

    async function killed(process: ChildProcess): Promise<void> {
      const gone = once(process, 'exit');
      process.kill('SIGKILL');
      await gone;
    }

    /** What checks come to; a server may need a moment to see that its client is gone. */
    async function decision(): Promise<string> {
      const check = createCheckHandler({
        signingSecret: SIGNING_SECRET,
        database: suite.connect().database,
        logger,
      });
      const [id = ''] = broker.transactions.keys();
      const answers: string[] = [];
      await until('a check decides', async () => {
        answers.push(await ask(check, id));
        return answers.at(-1) !== 'unknown';
      });
      expect(await ask(check, id)).toBe(answers.at(-1));
      return String(answers.at(-1));
    }

    test('before its COMMIT has written nothing, and a check answers rollback (F10)', async () => {
      const producer = startChild('stay', 'prepared');
      await untilInserted(producer);
      await until('the broker has it', () => broker.transactions.size === 1);
      await killed(producer);
      expect(await decision()).toBe('rollback');
      expect(await suite.accounts()).toEqual([]);
    });

    test('after its COMMIT, before the broker heard of it, is answered commit by a check (F22)', async () => {
      broker.script.push('behave', 'hang');
      const producer = startChild('end', 'prepared');
      await until('the commit arrives at the broker', () =>
        broker.operations().some(({ op }) => op === 'commit'),
      );
      await killed(producer);
      expect(await decision()).toBe('commit');
      expect(await suite.accounts()).toEqual([1]);
    });

    /** What a relay sends when everything is due, and the death of the child was noticed. */
    async function relayed(): Promise<{ sent: number; parked: number; putOff: number }> {
      await until('its transaction is over', async () => (await suite.idleInTransaction()) === 0);
      await suite.observe("update escrow_outbox set due_at = 0 where state = 'unsent'");
      const { database } = suite.connect();
      const relay = createOutboxRelay({
        brokers: [broker.address],
        producerGroup: 'accounts',
        database,
        logger,
      });
      const counts = await relay.runOnce();
      await relay.close();
      return counts;
    }

    test('before its COMMIT has left nothing in the outbox', async () => {
      const producer = startChild('stay', 'outbox');
      await untilInserted(producer);
      await killed(producer);
      expect(await relayed()).toEqual({ sent: 0, parked: 0, putOff: 0 });
      expect(await suite.observe('select 1 as one from escrow_outbox')).toEqual([]);
      expect(await suite.accounts()).toEqual([]);
      expect(broker.requests).toEqual([]);
    });

    test('after its COMMIT, before the broker heard of it, has left its message to a relay', async () => {
      broker.script.push('hang');
      const producer = startChild('end', 'outbox');
      await until('the message arrives at the broker', () => broker.requests.length > 0);
      await killed(producer);
      expect(broker.transactions.size).toBe(0);
      expect(await relayed()).toEqual({ sent: 1, parked: 0, putOff: 0 });
      expect([...broker.transactions.values()]).toMatchObject([{ state: 'committed' }]);
      expect(await suite.accounts()).toEqual([1]);
    });
  });
}

/** What the driver sends for COMMIT, and nothing else that a transaction of the SDK sends. */
const COMMIT: Partial<Record<Dialect, string | RegExp>> = {
  mysql: mysqlStatement('commit'),
  // A Query message with its length.
  postgres: 'Q\0\0\0\x0bcommit\0',
};

/** A COMMIT whose connection breaks: the client can't tell whether it arrived. */
export function describeAmbiguousCommit(kind: DatabaseKind, trials: number): void {
  describe.each(MODES)(
    `a COMMIT on ${kind.name} whose connection breaks, messages $name`,
    (mode) => {
      const { logger } = recordingLogger();
      let suite: SuiteDatabase;
      let broker: FakeBroker;
      let proxy: TcpProxy;
      let connections: SuiteConnections;
      let producer: Producer;

      beforeAll(async () => {
        suite = await kind.start();
        proxy = await startTcpProxy(suite.url);
        connections = suite.connect({ connections: 2, port: proxy.port });
        broker = await startFakeBroker();
        producer = createProducer({
          brokers: [broker.address],
          producerGroup: 'accounts',
          logger,
          settleTimeoutMs: 2_000,
          ...mode.options,
        });
        // What is asked of a database once has been asked: from now on the next COMMIT is the one.
        await attempt(0);
      });
      afterAll(async () => {
        await producer.close();
        await broker.close();
        await proxy.close();
        await suite.close();
      });
      beforeEach(async () => {
        await suite.observe('delete from account');
      });

      async function attempt(account: number): Promise<{ id: string; outcome: unknown }> {
        let id = '';
        const outcome = await producer
          .transaction(connections.database, { topic: 'user', data: account }, async (tx, info) => {
            id = info.id;
            await suite.send(tx, `insert into account (id) values (${account})`);
          })
          .catch((error: unknown) => error);
        return { id, outcome };
      }

      async function cutOne(account: number, when: 'before' | 'after') {
        const pattern = COMMIT[kind.dialect];
        if (pattern === undefined) throw new Error(`${kind.name} has no wire to cut`);
        // Behind the one before, the outbox may still commit that it was sent.
        await mode.settled(suite, broker, connections.database);
        const cut = proxy.cutNext(pattern, when);
        const attempted = await attempt(account);
        await cut;
        return attempted;
      }

      test(`before it reached the server is decided as a rollback, ${trials} times of ${trials} (F16)`, async () => {
        for (let trial = 1; trial <= trials; trial += 1) {
          const { id, outcome } = await cutOne(trial, 'before');
          expect(outcome).toHaveProperty('message');
          await mode.expectTold(broker, id, 'rollback');
          expect(await mode.row(suite, id)).toBe('rollback');
        }
        expect(await suite.accounts()).toEqual([]);
      });

      test(`after it reached the server is decided as a commit, ${trials} times of ${trials} (F15)`, async () => {
        for (let trial = 1; trial <= trials; trial += 1) {
          const { id, outcome } = await cutOne(trial, 'after');
          const { acknowledged } = mode;
          expect(outcome).toMatchObject({ outcome: 'committed', id, acknowledged });
          await mode.expectTold(broker, id, 'commit');
          expect(await mode.row(suite, id)).toBe('commit');
        }
        expect(await suite.accounts()).toHaveLength(trials);
      });

      test('leaves no connection behind and no transaction open', async () => {
        await mode.settled(suite, broker, connections.database);
        const held = [await connections.hold(), await connections.hold()];
        for (const giveBack of held) giveBack();
        expect(await suite.idleInTransaction()).toBe(0);
      });
    },
  );
}
