import { EscrowError, isEscrowError } from '@escrowmq/protocol';
import type {
  Dialect,
  Executor,
  LocalDatabase,
  OpenTransaction,
  TransactionLimits,
} from '../database.js';
import { within } from '../deadline.js';
import { isAway, meaningOf } from '../server-errors.js';
import { savepointGuard } from '../transaction-guard.js';
import { noConnection, unavailable } from '../unavailable.js';
import { provenCommit } from './managed-commit.js';

/**
 * A database behind a layer that opens and ends transactions itself, as query builders and ORMs do:
 * two functions make an adapter.
 */
export interface ManagedLayer<Tx> {
  /** The layer's own object. The same one gives the same database, about which things are learnt. */
  on: object;
  dialect: Dialect;
  layer: string;
  /** Runs `work` in a transaction of the layer, which commits when it resolves. */
  begin<T>(work: (tx: Tx) => Promise<T>, limits: TransactionLimits): Promise<T>;
  executor(tx: Tx): Executor;
}

const made = new WeakMap<object, LocalDatabase<unknown>>();

export function managedDatabase<Tx>(managed: ManagedLayer<Tx>): LocalDatabase<Tx> {
  const known = made.get(managed.on);
  // Only ever one layer and one type of transaction per object.
  if (known !== undefined) return known as LocalDatabase<Tx>;
  const database = databaseOn(managed);
  made.set(managed.on, database as LocalDatabase<unknown>);
  return database;
}

function databaseOn<Tx>(managed: ManagedLayer<Tx>): LocalDatabase<Tx> {
  const { dialect, layer } = managed;
  return {
    kind: 'database',
    dialect,
    layer,
    transaction: (work, limits) => transaction(managed, limits, work),
    async session(work, limits) {
      try {
        return await begin(managed, limits, (tx) => work(managed.executor(tx)));
      } catch (error) {
        throw unavailable(error, layer);
      }
    },
  };
}

async function transaction<Tx, T>(
  managed: ManagedLayer<Tx>,
  limits: TransactionLimits,
  work: (open: OpenTransaction<Tx>) => Promise<T>,
): Promise<T> {
  /** Once COMMIT is proven, it does not matter how the layer ends. */
  let committed: { value: T } | undefined;
  try {
    return await begin(managed, limits, async (tx) => {
      const executor = managed.executor(tx);
      const proven = provenCommit(executor, managed.dialect);
      const value = await work({ tx, executor, guard: proven?.guard ?? savepointGuard(executor) });
      if (proven === undefined) return value;
      await within(proven.commit(), limits.commitTimeoutMs, {
        error: () => unanswered(managed.layer, limits),
      });
      committed = { value };
      return value;
    });
  } catch (error) {
    if (committed !== undefined) return committed.value;
    throw error;
  }
}

/**
 * Holds the layer to the limits. It can't be stopped from outside: a transaction that it opens too
 * late is rolled back before anything was written in it.
 *
 * The result is the work's own and never the layer's. Knex resolves as soon as a callback has called
 * `trx.commit()` or `trx.rollback()`, while the rest of it still runs; Kysely and Drizzle replace
 * the callback's error by that of a ROLLBACK which failed.
 */
async function begin<Tx, T>(
  managed: ManagedLayer<Tx>,
  limits: TransactionLimits,
  work: (tx: Tx) => Promise<T>,
): Promise<T> {
  const { layer } = managed;
  const { connectionTimeoutMs, commitTimeoutMs } = limits;
  const late = () =>
    new EscrowError(
      'DATABASE_UNAVAILABLE',
      `${layer} opened no transaction within ${Math.round(connectionTimeoutMs)} ms; nothing was written`,
    );
  let isTooLate = false;
  let hasBegun = (_working: Promise<T>) => {};
  const begun = new Promise<{ working: Promise<T> }>((resolve) => {
    hasBegun = (working) => resolve({ working });
  });
  const ended = beginIn(managed, limits, (tx) => {
    if (isTooLate) return Promise.reject(late());
    const working = work(tx);
    hasBegun(working);
    return working;
  });
  // Whoever waits below gets its error; an end that comes after a limit is nobody's any more.
  ended.catch(() => undefined);

  const failed = failureOf(ended).catch((error: unknown) => {
    throw noConnection(error, layer);
  });
  const opened = await within(Promise.race([begun, failed]), connectionTimeoutMs, {
    error: () => {
      isTooLate = true;
      return late();
    },
  });
  const answered = () => within(ended, commitTimeoutMs, { error: () => unanswered(layer, limits) });
  let result: T;
  try {
    result = await opened.working;
  } catch (error) {
    // An error of ROLLBACK says no more than that the connection is lost, which rolls back as well.
    const failure = await answered().catch((atEnd: unknown) => atEnd);
    throw neverOpened(error, failure) ? unavailable(failure, layer) : error;
  }
  await answered();
  return result;
}

/**
 * Where BEGIN fails on a connection that was lost before, Knex goes on with a transaction that takes no
 * statements, and says at its end only what was wrong.
 */
function neverOpened(error: unknown, failure: unknown): boolean {
  return !isEscrowError(error) && meaningOf(error) === 'no open transaction' && isAway(failure);
}

/** A layer that was closed may say so at once. */
async function beginIn<Tx, T>(
  managed: ManagedLayer<Tx>,
  limits: TransactionLimits,
  work: (tx: Tx) => Promise<T>,
): Promise<T> {
  return managed.begin(work, limits);
}

function unanswered(layer: string, { commitTimeoutMs }: TransactionLimits): EscrowError {
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `${layer} did not answer the end of the transaction within ${Math.round(commitTimeoutMs)} ms`,
  );
}

/** Rejects as `work` does, and never resolves. */
function failureOf(work: Promise<unknown>): Promise<never> {
  return new Promise((_, reject) => {
    work.catch(reject);
  });
}
