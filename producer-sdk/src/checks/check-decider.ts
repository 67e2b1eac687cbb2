import type { LocalDatabase } from '@escrowmq/database';
import { type DatabaseInput, Deadline, databaseOf, within } from '@escrowmq/database';
import { type CheckAnswer, type CheckRequest, EscrowError, optionNames } from '@escrowmq/protocol';
import { createBarrierIdentities } from '../local/barrier.js';
import { purgedUntil } from '../local/barrier-mark.js';
import {
  BARRIER_RETENTION_MS,
  BARRIER_RETENTION_SLACK_MS,
  noteRetention,
} from '../local/barrier-retention.js';
import { decideOutcome } from '../local/decide-outcome.js';
import { type Logger, loggerOf } from '../logger.js';
import { parseLimit } from '../options.js';
import { type CheckContext, readCheckContext } from './check-context.js';

/*
 * How a producer decides a check, however the check reached it: finds the database that holds the
 * barrier and has the outcome decided there. Where that may not or can't be done the answer is
 * `unknown`, which means "ask again" and decides nothing.
 */

/** Where checks are decided, and how. All times are milliseconds. */
export interface CheckDecisionOptions {
  /**
   * The one database of this producer; for transactions that name none.
   * @default none: `databases` has them
   */
  database?: DatabaseInput;
  /**
   * Databases by the name given as `database` in `transaction`.
   * @default none: `database` is the only one
   */
  databases?: Record<string, DatabaseInput>;
  /**
   * How long barrier rows are kept. A check for a transaction prepared longer ago than this, less
   * a day, inserts nothing and answers unknown. @default 7 days
   */
  barrierRetentionMs?: number;
  /** Limit for one answer. @default 2500: below the 3000 that the broker waits */
  answerTimeoutMs?: number;
  /**
   * Is told why a check was answered `unknown`, and what else is not thrown.
   * @default stderr, bounded
   */
  logger?: Logger;
}

export interface CheckDecider {
  readonly answerTimeoutMs: number;
  readonly logger: Logger;
  /** Never rejects, and never takes longer than `limitMs` milliseconds. */
  decide(check: CheckRequest, limitMs: number): Promise<CheckAnswer>;
}

/** One that also tells where it would decide, for whoever has something to do there afterwards. */
interface LocatingDecider extends CheckDecider {
  /** Where it may be decided: the database that the transaction was prepared in. Never rejects. */
  locate(prepared: Prepared, limitMs: number): Promise<Located>;
}

/** What a call of the broker tells of the transaction that it is about. */
export type Prepared = Pick<CheckRequest, 'id' | 'checkContext' | 'preparedAt'>;

export type Located =
  | { kind: 'here'; database: LocalDatabase<unknown> }
  | ({ kind: 'nowhere' } & Obstacle);

interface Obstacle {
  reason: string;
  cause?: unknown;
}

/** Wherever checks are decided. */
export const DECISION_OPTIONS = optionNames<CheckDecisionOptions>({
  database: true,
  databases: true,
  barrierRetentionMs: true,
  answerTimeoutMs: true,
  logger: true,
});

const ANSWER_TIMEOUT_MS = 2_500;

/** @throws {EscrowError} INVALID_CONFIGURATION: no database, both kinds, or a limit that is none */
export function createCheckDecider(options: CheckDecisionOptions): LocatingDecider {
  const { named, all } = parseDatabases(options);
  const answerTimeoutMs = parseLimit(
    'answerTimeoutMs',
    options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS,
  );
  const identities = createBarrierIdentities(answerTimeoutMs);
  const { barrierRetentionMs = BARRIER_RETENTION_MS } = options;
  const ageMsMax = parseRetention(barrierRetentionMs);
  for (const each of all) noteRetention(each, barrierRetentionMs);
  const logger = loggerOf(options.logger);

  function unknown({ id, attempt }: CheckRequest, reason: string, error?: unknown): CheckAnswer {
    const fields = { transactionId: id, attempt, reason, error };
    logger.warn(fields, 'a check was answered unknown');
    return { id, decision: 'unknown' };
  }

  /** Why `database` may not decide: its barrier table is not the one that the transaction wrote to. */
  async function isElsewhere(
    database: LocalDatabase<unknown>,
    { barrier }: CheckContext,
    limitMs: number,
  ): Promise<Obstacle | undefined> {
    if (barrier === undefined) return undefined;
    try {
      const here = identities.known(database) ?? (await answered(identities.of(database), limitMs));
      if (here === barrier) return undefined;
      return { reason: 'this is not the database that the transaction was prepared in' };
    } catch (cause) {
      return { reason: 'the identity of the barrier table could not be read', cause };
    }
  }

  /** Why nobody can tell any more what became of it: its row may have been there, and purged. */
  async function isPurged(
    database: LocalDatabase<unknown>,
    { preparedAt }: Prepared,
    limitMs: number,
  ): Promise<Obstacle | undefined> {
    // Rows that young are never purged; nearly all that is asked for is younger.
    if (Date.now() - preparedAt <= BARRIER_RETENTION_SLACK_MS) return undefined;
    const limits = { connectionTimeoutMs: answerTimeoutMs, commitTimeoutMs: answerTimeoutMs };
    try {
      const until = await answered(purgedUntil(database, limits), limitMs);
      if (until === undefined || preparedAt > until + BARRIER_RETENTION_SLACK_MS) return undefined;
      return { reason: 'its barrier row may be purged: other rows of that time are' };
    } catch (cause) {
      return { reason: 'whether its barrier row may be purged could not be read', cause };
    }
  }

  async function locate(prepared: Prepared, limitMs: number): Promise<Located> {
    if (Date.now() - prepared.preparedAt > ageMsMax) {
      return { kind: 'nowhere', reason: 'prepared longer ago than barrier rows are kept' };
    }
    const context = readCheckContext(prepared.checkContext);
    const database = named(context.database);
    if (database === undefined) {
      const name = context.database ?? '(none named)';
      return { kind: 'nowhere', reason: `no database is known here as ${name}` };
    }
    const deadline = new Deadline(limitMs);
    const obstacle =
      (await isElsewhere(database, context, limitMs)) ??
      (await isPurged(database, prepared, deadline.leftMs));
    return obstacle === undefined ? { kind: 'here', database } : { kind: 'nowhere', ...obstacle };
  }

  return {
    answerTimeoutMs,
    logger,
    locate,
    async decide(check, limitMs) {
      const deadline = new Deadline(limitMs);
      const located = await locate(check, limitMs);
      if (located.kind === 'nowhere') return unknown(check, located.reason, located.cause);
      const outcome = await decideOutcome(located.database, check.id, deadline.leftMs);
      if (outcome.decision === 'unknown') return unknown(check, outcome.reason, outcome.cause);
      // With the data of its messages, where prepare left it open.
      return { id: check.id, ...outcome };
    },
  };
}

const answered = <T>(work: Promise<T>, limitMs: number): Promise<T> =>
  within(work, limitMs, {
    error: () => new Error(`the database gave no answer within ${Math.round(limitMs)} ms`),
  });

interface Databases {
  named(name: string | undefined): LocalDatabase<unknown> | undefined;
  all: Iterable<LocalDatabase<unknown>>;
}

function parseDatabases({ database, databases }: CheckDecisionOptions): Databases {
  if ((database === undefined) === (databases === undefined)) {
    throw new EscrowError('INVALID_CONFIGURATION', 'give either database or databases');
  }
  if (database !== undefined) {
    const only = databaseOf(database);
    // A name that nobody here knows is another database: its barrier is not in this one.
    return { named: (name) => (name === undefined ? only : undefined), all: [only] };
  }
  const byName = new Map(
    Object.entries(databases ?? {}).map(([name, given]) => [name, databaseOf(given)]),
  );
  return {
    named: (name) => (name === undefined ? undefined : byName.get(name)),
    all: byName.values(),
  };
}

function parseRetention(barrierRetentionMs: number): number {
  const ageMsMax = barrierRetentionMs - BARRIER_RETENTION_SLACK_MS;
  if (ageMsMax > 0) return ageMsMax;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `barrierRetentionMs is ${barrierRetentionMs}; it must be more than a day`,
  );
}
