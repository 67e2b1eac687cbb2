import { EscrowError, type TransactionAnswer } from '@escrowmq/protocol';
import { beforeEach, describe, expect, test } from '@jest/globals';
import type { LocalDatabase, SqlValue } from '../../database/src/database.js';
import { executorOn } from '../../database/src/executor.js';
import type { Operation } from '../../producer-sdk/src/client/operation-json.js';
import {
  createOutboxSender,
  type OutboxSender,
} from '../../producer-sdk/src/outbox/outbox-sender.js';
import { decided } from '../support/fake-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { whatIsReady } from '../support/ready.js';

const operation = (number: number): Operation => {
  const id = `0198f3c2-7a10-7cc3-98c4-${String(number).padStart(12, '0')}`;
  return { op: 'send', id, json: '{}', bytes: 2 };
};

describe('what a transaction left in the outbox', () => {
  const { logger, records } = recordingLogger();
  let run: (operation: Operation) => Promise<TransactionAnswer>;
  let tried: number;
  let marked: (readonly SqlValue[])[];
  let markingFails: boolean;
  let database: LocalDatabase<unknown>;
  let sender: OutboxSender;

  beforeEach(() => {
    records.length = 0;
    run = async ({ id }) => decided(id, 'commit');
    tried = 0;
    marked = [];
    markingFails = false;
    database = {
      kind: 'database',
      dialect: 'sqlite',
      layer: 'a fake',
      transaction: () => Promise.reject(new Error('not in this fake')),
      async session(work) {
        if (markingFails) throw new Error('the database is gone');
        const send = async (_: string, values: readonly SqlValue[]) => void marked.push(values);
        return work(executorOn({ layer: 'a fake', hooks: 'nothing', send }));
      },
    };
    sender = createOutboxSender({
      operations: {
        run(given) {
          tried += 1;
          return run(given);
        },
      },
      runInBackground: (work) => void work,
      logger,
    });
  });

  test('is marked together, by one statement', async () => {
    for (let number = 1; number <= 100; number += 1) sender.send(database, operation(number));
    await whatIsReady();
    expect(marked).toHaveLength(1);
    expect(marked[0]).toHaveLength(100);
    expect(records).toEqual([]);
  });

  test('is left to a relay while no broker answers, which is said once', async () => {
    run = async () => {
      throw new EscrowError('BROKER_UNREACHABLE', 'nobody answers');
    };
    sender.send(database, operation(1));
    sender.send(database, operation(2));
    await whatIsReady();
    sender.send(database, operation(3));
    await whatIsReady();
    expect(tried).toBe(2);
    expect(marked).toEqual([]);
    expect(records).toMatchObject([
      { level: 'warn', message: expect.stringContaining('a relay will send it') },
    ]);
  });

  test('is not marked when the broker refused it, and the others go on', async () => {
    run = async ({ id }) => {
      if (id === operation(1).id) throw new EscrowError('INVALID_REQUEST', 'not this one');
      return decided(id, 'commit');
    };
    sender.send(database, operation(1));
    await whatIsReady();
    sender.send(database, operation(2));
    await whatIsReady();
    expect(marked).toEqual([[operation(2).id.replaceAll('-', '')]]);
    expect(records).toMatchObject([{ level: 'error', fields: { transactionId: operation(1).id } }]);
  });

  test('is sent a bounded number at a time', async () => {
    run = () => new Promise(() => {});
    for (let number = 1; number <= 3_000; number += 1) sender.send(database, operation(number));
    expect(tried).toBe(2_000);
  });

  test('is said to be sent again when it could not be marked', async () => {
    markingFails = true;
    sender.send(database, operation(1));
    await whatIsReady();
    expect(records).toMatchObject([
      { level: 'warn', message: expect.stringContaining('a relay sends it once more') },
    ]);
  });
});
