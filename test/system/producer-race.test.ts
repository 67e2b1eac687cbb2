import { createCheckHandler, createProducer } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';
import { until } from '../support/until.js';

const TRANSACTIONS = 200;
const CONCURRENT = 6;

/** Checks every transaction as soon as the broker holds it, until `isOver`; `answers` gets each id's. */
async function checkEverything(
  database: ProducerDatabase,
  broker: FakeBroker,
  { answers, isOver }: { answers: Map<string, string[]>; isOver: () => boolean },
): Promise<void> {
  const { logger } = recordingLogger();
  const check = createCheckHandler({
    signingSecret: SIGNING_SECRET,
    database: database.pool({ connectionLimit: 8 }),
    logger,
  });
  const checks: Promise<void>[] = [];
  while (!isOver()) {
    for (const id of broker.transactions.keys()) {
      if (answers.has(id)) continue;
      const said: string[] = [];
      answers.set(id, said);
      checks.push(ask(check, id).then((decision) => void said.push(decision)));
    }
    await new Promise(setImmediate);
  }
  await Promise.all(checks);
  // After everything has ended, no answer is unknown any more.
  for (const [id, said] of answers) said.push(await ask(check, id));
}

test('whenever a check comes, its answer, the barrier, the rows and the caller agree', async () => {
  const database = await startProducerDatabase();
  const broker = await startFakeBroker();
  const { logger } = recordingLogger();
  const producer = createProducer({
    brokers: [broker.address],
    producerGroup: 'accounts',
    logger,
  });
  try {
    const pool = database.pool({ connectionLimit: CONCURRENT });
    const succeeded = new Map<number, string>();
    let next = 0;
    let running = CONCURRENT;
    const work = async () => {
      while (next < TRANSACTIONS) {
        next += 1;
        const account = next;
        await producer
          .transaction(pool, { topic: 'user', data: account }, async (tx, { id }) => {
            await tx.execute('insert into account (id) values (?)', [account]);
            if (account % 40 === 0) {
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
    const answers = new Map<string, string[]>();
    const checking = checkEverything(database, broker, { answers, isOver: () => running === 0 });
    await Promise.all(Array.from({ length: CONCURRENT }, work));
    await checking;

    expect(await database.accounts()).toEqual([...succeeded.keys()].sort((a, b) => a - b));
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
  } finally {
    await producer.close();
    await broker.close();
    await database.close();
  }
});
