import { createCheckHandler, createProducer } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import type { LocalDatabase } from '../../database/src/database.js';
import { type FakeBroker, startFakeBroker } from './fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from './producer-database.js';
import type { DatabaseKind } from './producer-databases.js';
import { until } from './until.js';

const TRANSACTIONS = 200;
const CONCURRENT = 6;

/** A check gives up on an open transaction sooner than another one does on its turn. */
const ANSWER_TIMEOUT_MS = 1_500;

interface Checking {
  database: LocalDatabase<unknown>;
  broker: FakeBroker;
  answers: Map<string, string[]>;
  isOver(): boolean;
}

/**
 * Turns of the event loop after which the next transaction is checked: some before they write their
 * row, some while they are open, some after their end.
 */
const TURNS_BEFORE_CHECK = [0, 3, 10, 30, 100];

/** Checks every transaction once the broker holds it, until `isOver`; `answers` gets each id's. */
async function checkEverything({ database, broker, answers, isOver }: Checking): Promise<void> {
  const check = createCheckHandler({
    signingSecret: SIGNING_SECRET,
    database,
    logger: recordingLogger().logger,
    answerTimeoutMs: ANSWER_TIMEOUT_MS,
  });
  const checks: Promise<void>[] = [];
  const checkLater = async (id: string, said: string[]) => {
    const turns = TURNS_BEFORE_CHECK[answers.size % TURNS_BEFORE_CHECK.length] ?? 0;
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
    said.push(await ask(check, id));
  };
  while (!isOver()) {
    for (const id of broker.transactions.keys()) {
      if (answers.has(id)) continue;
      const said: string[] = [];
      answers.set(id, said);
      checks.push(checkLater(id, said));
    }
    await new Promise(setImmediate);
  }
  await Promise.all(checks);
  // After everything has ended, no answer is unknown any more.
  for (const [id, said] of answers) said.push(await ask(check, id));
}

export function testProducerRace(kind: DatabaseKind): void {
  test(`whenever a check comes on ${kind.name}, its answer, the barrier, the rows and the caller agree (F11, F35)`, async () => {
    const suite = await kind.start();
    const broker = await startFakeBroker();
    const { logger } = recordingLogger();
    const producer = createProducer({
      brokers: [broker.address],
      producerGroup: 'accounts',
      logger,
      connectionTimeoutMs: 10_000,
    });
    try {
      const { database } = suite.connect({ connections: CONCURRENT });
      const succeeded = new Map<number, string>();
      const answers = new Map<string, string[]>();
      let next = 0;
      let running = CONCURRENT;
      const work = async () => {
        while (next < TRANSACTIONS) {
          next += 1;
          const account = next;
          await producer
            .transaction(database, { topic: 'user', data: account }, async (tx, { id }) => {
              await suite.send(tx, `insert into account (id) values (${account})`);
              if (account % 29 === 0) {
                const isAnswered = () => answers.get(id)?.length === 1;
                await until('a check was answered meanwhile', isAnswered);
              }
              if (account % 3 === 0) throw new Error('mine');
              succeeded.set(account, id);
            })
            .catch(() => succeeded.delete(account));
        }
        running -= 1;
      };
      const checking = checkEverything({
        database: suite.connect({ connections: 8 }).database,
        broker,
        answers,
        isOver: () => running === 0,
      });
      await Promise.all(Array.from({ length: CONCURRENT }, work));
      await checking;

      expect(await suite.accounts()).toEqual([...succeeded.keys()].sort((a, b) => a - b));
      const committed = new Set(succeeded.values());
      for (const [id, said] of answers) {
        const decisions = new Set(said.filter((answer) => answer !== 'unknown'));
        expect([...decisions]).toEqual([committed.has(id) ? 'commit' : 'rollback']);
      }
      for (const { id, decision } of broker.transactions.values()) {
        expect(decision?.decision).toBe(committed.has(id) ? 'commit' : 'rollback');
      }
      // Every kind of race was met, or the test says nothing.
      const firstAnswers = new Set([...answers.values()].map(([first]) => first));
      expect([...firstAnswers].sort()).toEqual(['commit', 'rollback', 'unknown']);
      expect(await suite.idleInTransaction()).toBe(0);
    } finally {
      await producer.close();
      await broker.close();
      await suite.close();
    }
  });
}
