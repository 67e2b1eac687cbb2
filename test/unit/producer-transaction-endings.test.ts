import { type ErrorCode, EscrowError } from '@escrowmq/protocol';
import { beforeEach, describe, expect, test } from '@jest/globals';
import type { LocalDatabase } from '../../database/src/database.js';
import { executorOn } from '../../database/src/executor.js';
import { savepointGuard } from '../../database/src/transaction-guard.js';
import { BARRIER_SQL } from '../../producer-sdk/src/local/barrier-sql.js';
import { type EscrowDeps, escrow } from '../../producer-sdk/src/local/escrow.js';
import { runTransaction } from '../../producer-sdk/src/local/transaction.js';
import type { Logger } from '../../producer-sdk/src/logger.js';

/* What callers are told of a transaction that did not come to its own COMMIT. */

const ID = '0198f3c2-0000-7000-8000-000000000001';
const sql = BARRIER_SQL.postgres;
const serverError = (code: string) => Object.assign(new Error(code), { code, severity: 'ERROR' });
const DUPLICATE_KEY = serverError('23505');
const NO_SAVEPOINT = serverError('3B001');
const connectionLost = () => Object.assign(new Error('read ECONNRESET'), { errno: -104 });
const never = () => new Promise<never>(() => {});

const ONE_ROW = { layer: 'one row', hooks: 'nothing' };

/** A database of one barrier row, whose connections fail as a test says. */
class OneRow {
  /** What is durable. */
  row: string | undefined;
  isReachable = true;
  /** The answer to ROLLBACK TO SAVEPOINT. */
  undo: () => Promise<void> = async () => {
    if (this.row === 'commit') throw NO_SAVEPOINT;
  };

  readonly database: LocalDatabase<{ commit(): void }> = {
    kind: 'database',
    dialect: 'postgres',
    layer: 'one row',
    transaction: async (work) => {
      const tx = { commit: () => this.#decide('commit') };
      const executor = executorOn({
        ...ONE_ROW,
        send: async (statement) => {
          if (statement.startsWith('rollback to')) await this.undo();
          if (statement.startsWith('release') && this.row !== undefined) throw NO_SAVEPOINT;
        },
      });
      const value = await work({ tx, executor, guard: savepointGuard(executor) });
      this.#decide('commit');
      return value;
    },
    session: async (work) => {
      if (!this.isReachable) throw connectionLost();
      const executor = executorOn({
        ...ONE_ROW,
        send: async (statement, [, decision]) => {
          if (statement === sql.insert) this.#decide(String(decision));
          return statement === sql.read ? [{ decision: this.row, data: null }] : [];
        },
      });
      return work(executor);
    },
  };

  #decide(decision: string): void {
    if (this.row !== undefined) throw DUPLICATE_KEY;
    this.row = decision;
  }
}

const failing = (code: ErrorCode) => async () => {
  throw new EscrowError(code, `the broker says ${code}`);
};
const yes = async () => ({ id: ID, state: 'prepared' }) as never;

let rows: OneRow;
let logged: string[];
beforeEach(() => {
  rows = new OneRow();
  logged = [];
});

type Broker = Pick<EscrowDeps, 'prepare' | 'commit' | 'rollback'>;

function transact(
  callback: (tx: { commit(): void }) => Promise<void>,
  {
    commitInBackground = false,
    ...broker
  }: Partial<Broker> & { commitInBackground?: boolean } = {},
) {
  const log = (_: object, text: string) => void logged.push(text);
  const logger: Logger = { warn: log, error: log };
  const runInBackground = (work: Promise<void>) => void work;
  const answers: Broker = { prepare: yes, commit: yes, rollback: yes, ...broker };
  const size = { bytes: 100, bytesMax: 1_000 };
  const limits = {
    connectionTimeoutMs: 1_000,
    transactionTimeoutMs: 1_000,
    startDeadlineMs: 1_000,
    settleTimeoutMs: 50,
  };
  return runTransaction(
    { logger, runInBackground, limits, waitForCommit: !commitInBackground },
    {
      database: rows.database,
      messages: escrow({ id: ID, open: [], size, ...answers, runInBackground, logger }),
      callback,
    },
  );
}

/** The broker refuses the prepare at first, and says something else later. */
function prepareTwice(first: ErrorCode, later: () => Promise<never>): () => Promise<never> {
  let calls = 0;
  return () => {
    calls += 1;
    return calls === 1 ? failing(first)() : later();
  };
}

describe('a callback that commits by itself is told what became of its messages', () => {
  const commitByItself = async (tx: { commit(): void }) => tx.commit();
  const misused = (messages: string, words: RegExp) => ({
    code: 'TRANSACTION_MISUSED',
    message: expect.stringMatching(words),
    details: { id: ID, outcome: 'commit', messages },
  });

  test('committed, when the broker holds them and says so', async () => {
    await expect(transact(commitByItself)).rejects.toMatchObject(
      misused('committed', /and so are its messages$/),
    );
  });

  test('held, when the broker has them and can not be told', async () => {
    const commit = failing('BROKER_UNREACHABLE');
    await expect(transact(commitByItself, { commit })).rejects.toMatchObject(
      misused('held', /the broker holds its messages, and its check will commit them$/),
    );
    expect(logged).toEqual(['committed locally, broker not told: its check will commit']);
  });

  test('committed, when the broker was not there before and gets them now', async () => {
    const prepare = prepareTwice('BROKER_UNREACHABLE', yes);
    const commit = prepareTwice('TRANSACTION_NOT_FOUND', yes);
    await expect(transact(commitByItself, { prepare, commit })).rejects.toMatchObject(
      misused('committed', /and so are its messages$/),
    );
    expect(logged).toEqual([expect.stringMatching(/they are prepared and committed now$/)]);
  });

  test.each([false, true])(
    'not known, when the broker was never reached (commitInBackground: %s)',
    async (commitInBackground) => {
      const gone = failing('BROKER_UNREACHABLE');
      const broker = { prepare: gone, commit: gone, commitInBackground };
      await expect(transact(commitByItself, broker)).rejects.toMatchObject(
        misused('unknown', /whether its messages will be sent is not known/),
      );
      expect(logged.join()).not.toMatch(/will commit/);
    },
  );

  test('not known, when the broker holds them and refuses their commit', async () => {
    const commit = failing('STATE_CONFLICT');
    await expect(transact(commitByItself, { commit })).rejects.toMatchObject(
      misused('unknown', /whether its messages will be sent is not known/),
    );
  });

  test('held by nobody, when the broker refused them', async () => {
    const prepare = failing('UNKNOWN_PRODUCER_GROUP');
    const commit = failing('TRANSACTION_NOT_FOUND');
    await expect(transact(commitByItself, { prepare, commit })).rejects.toMatchObject(
      misused('notHeld', /holds none of them/),
    );
  });
});

describe('a transaction whose connection broke before COMMIT', () => {
  const lose = async () => {
    rows.undo = () => Promise.reject(connectionLost());
    throw connectionLost();
  };

  test('is rolled back, and says why, when the database can be asked', async () => {
    await expect(transact(lose)).rejects.toThrow('ECONNRESET');
    expect(rows.row).toBe('rollback');
  });

  test('is unknown when nobody can be asked, and not said to be rolled back', async () => {
    rows.isReachable = false;
    const result = await transact(lose);
    expect(result).toMatchObject({
      outcome: 'unknown',
      id: ID,
      reason: expect.stringMatching(/a check will decide whether its messages are sent$/),
      cause: { message: 'read ECONNRESET' },
    });
  });

  test('promises no check where the broker has not acknowledged the messages', async () => {
    rows.isReachable = false;
    const prepare = failing('BROKER_UNREACHABLE');
    expect(await transact(lose, { prepare, rollback: prepare })).toMatchObject({
      outcome: 'unknown',
      reason: expect.stringMatching(/a check decides only if it does$/),
    });
    expect(logged.join()).not.toMatch(/will decide/);
  });
});

test('a connection that never answers ends the wait, and nothing is claimed of its outcome', async () => {
  rows.undo = never;
  rows.isReachable = false;
  const failure = new Error('the callback fails');
  const given = transact(async () => {
    throw failure;
  });
  expect(await given).toMatchObject({ outcome: 'unknown', cause: failure });
});

test('a connection that never answers is rolled back by a decision as soon as another one answers', async () => {
  rows.undo = never;
  const failed = transact(async () => {
    throw new Error('the callback fails');
  });
  await expect(failed).rejects.toThrow('the callback fails');
  expect(rows.row).toBe('rollback');
});
