import { setTimeout as pause } from 'node:timers/promises';
import { fromMysql2 } from '@escrowmq/database/mysql2';
import type { Producer, TransactionOptions, TransactionResult } from '@escrowmq/producer';
import type { Pool, PoolConnection, ResultSetHeader } from 'mysql2/promise';
import { connectionOf, inTime } from './ask.js';
import { type Body, bodyOf, type Job, messageOf } from './jobs.js';
import { ROUTING_KEY, TOPIC } from './settings.js';

export type Outcome = 'committed' | 'thrown' | 'unknown';

export interface JobDeps {
  producer: Producer;
  pool: Pool;
  /** Name of the pool's database in checks. */
  database: string;
}

/** Sooner than in production (10 s), so that many are asked about in a run of minutes. */
const CHECK_AFTER_MS = 1_500;
/** While the callback of a slow job is still at work. */
const CHECK_SLOW_AFTER_MS = 50;
/** For a transaction that is opened by hand; the SDK's own has its `transactionTimeoutMs`. */
const ENLIST_MS_MAX = 10_000;

/** What a callback throws that wants to be rolled back. */
class Refused extends Error {}

type Tx = Pick<PoolConnection, 'execute'>;

/** Does a job that hangs on a local transaction. Whatever is thrown belongs to the faults. */
export async function doJob(deps: JobDeps, job: Job): Promise<Outcome> {
  try {
    switch (job.kind) {
      case 'enlist':
        return await enlist(deps, job);
      case 'abandon':
        await deps.producer.prepare({
          messages: job.bodies.map(messageOf),
          checkContext: deps.database,
          checkAfterMs: CHECK_AFTER_MS,
        });
        return 'thrown';
      case 'dataAtCommit':
        return (await transactionWithOpenData(deps, job)).outcome;
      default:
        return (await transaction(deps, job)).outcome;
    }
  } catch {
    return 'thrown';
  }
}

function transaction(
  { producer, pool, database }: JobDeps,
  { kind, bodies, workMs }: Job,
): Promise<TransactionResult<void>> {
  return producer.transaction(
    pool,
    bodies.map(messageOf),
    async (tx, { id }) => {
      await note(tx, id, bodies);
      if (workMs > 0) await pause(workMs);
      if (kind === 'rollback') throw new Refused();
    },
    optionsOf(database, kind === 'slow'),
  );
}

/** The data hold a number that only the database can give. */
function transactionWithOpenData(
  { producer, pool, database }: JobDeps,
  { number }: Job,
): Promise<TransactionResult<void>> {
  return producer.transaction(
    pool,
    { topic: TOPIC, routingKey: ROUTING_KEY, dataAtCommit: true },
    async (tx, { id, supplyData }) => {
      const [{ insertId }] = await tx.execute<ResultSetHeader>(
        'insert into business (transaction_id, message_number, sha256) values (?, 0, ?)',
        [id, ''],
      );
      const data = { producer: database, number, row: insertId };
      await tx.execute('update business set sha256 = ? where id = ?', [
        bodyOf(data).sha256,
        insertId,
      ]);
      supplyData(data);
    },
    optionsOf(database),
  );
}

async function enlist({ producer, pool, database }: JobDeps, { bodies }: Job): Promise<Outcome> {
  const connection = await connectionOf(pool);
  const work = async () => {
    await connection.beginTransaction();
    const escrow = await producer.enlist(
      fromMysql2(connection),
      bodies.map(messageOf),
      optionsOf(database),
    );
    try {
      await note(connection, escrow.id, bodies);
      await escrow.verify();
      await connection.commit();
    } catch {
      // It may have been the COMMIT: settle finds out, once nothing can come after it any more.
      connection.destroy();
    }
    const { outcome } = await escrow.settle(fromMysql2(pool));
    return outcome === 'rolledBack' ? 'thrown' : outcome;
  };
  try {
    const outcome = await inTime(work(), ENLIST_MS_MAX);
    connection.release();
    return outcome;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** The producer's own rows: the truth that the checker holds the consumers' against. */
async function note(tx: Tx, id: string, bodies: readonly Body[]): Promise<void> {
  const rows = bodies.map(({ sha256 }, number) => [id, number, sha256]);
  await tx.execute(
    `insert into business (transaction_id, message_number, sha256) values ${rows.map(() => '(?, ?, ?)').join(', ')}`,
    rows.flat(),
  );
}

const optionsOf = (database: string, isSlow = false): TransactionOptions => ({
  database,
  checkAfterMs: isSlow ? CHECK_SLOW_AFTER_MS : CHECK_AFTER_MS,
});
