import type { LocalDatabase, LocalTransaction, TransactionGuard } from '@escrowmq/database';
import { isSqliteInTransaction, meaningOf, savepointGuard } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { inTime } from '../client/typed-messages.js';
import type { ProducerLimits } from '../options.js';
import type { HeldMessages } from './held-messages.js';
import { createSuppliedData, type SupplyData } from './supplied-data.js';
import { decideAndTell, type Telling } from './telling.js';

/** Messages that hang on a transaction which the caller opened, and ends, himself. */
export interface EnlistedTransaction {
  /** The id under which the messages are held. */
  readonly id: string;
  /** Supplies the data of a message that has `dataAtCommit: true`, before `verify`. */
  readonly supplyData: SupplyData;
  /**
   * Proves right before your COMMIT that the transaction is still the one that was enlisted, and
   * keeps supplied data in it; needed where data are supplied, wise elsewhere.
   *
   * @throws {EscrowError} TRANSACTION_MISUSED when it has ended meanwhile: don't go on
   */
  verify(): Promise<void>;
  /**
   * After your COMMIT or ROLLBACK, whether it succeeded or not: finds out what became of the
   * transaction, on a connection of its own and as a check does, and tells the broker. Safe to
   * repeat. Without it the broker's check does the same, later.
   *
   * @param database the one that the transaction was in
   * @returns `unknown` when the transaction is still open or the database can't be asked; the
   *   check will decide
   */
  settle(database: LocalDatabase<unknown>): Promise<SettleResult>;
}

/** What became of an enlisted transaction. */
export interface SettleResult {
  /** `unknown`: the check will decide. */
  outcome: 'committed' | 'rolledBack' | 'unknown';
  /** The id under which the messages are held. */
  id: string;
  /** Why it is not known; absent where it is. */
  reason?: string;
}

export interface EnlistDeps extends Telling {
  limits: Pick<ProducerLimits, 'settleTimeoutMs'>;
}

/**
 * Writes the row that binds the messages into the caller's open transaction, and then puts the
 * messages where they are held. Both are done when this has resolved, so a COMMIT that comes after
 * it is safe.
 *
 * In this order, because nobody asks about a transaction that was never prepared: should the row
 * turn out to stand outside of any transaction, it says nothing to anybody.
 */
export async function enlistIn(
  deps: EnlistDeps,
  transaction: LocalTransaction,
  messages: HeldMessages,
): Promise<EnlistedTransaction> {
  const { id } = messages;
  // A name of its own, as several may be enlisted in one transaction.
  const guard = savepointGuard(transaction.executor, `escrow_${id.replaceAll('-', '')}`);
  const supplied = createSuppliedData(messages);
  await bindInside(transaction, messages, guard);
  const failure = await messages.hold();
  if (failure !== undefined) throw failure;

  return {
    id,
    supplyData: supplied.supply,
    async verify() {
      const { settleTimeoutMs: limitMs } = deps.limits;
      const option = 'settleTimeoutMs';
      const messageData = await inTime(supplied.complete(), { limitMs, option });
      if (messageData !== undefined) await messages.supply(transaction, messageData);
      if (!(await guard.holds())) throw ended(id);
      await guard.arm();
    },
    async settle(database) {
      const limitMs = deps.limits.settleTimeoutMs;
      const outcome = await decideAndTell(deps, messages, { database, limitMs });
      switch (outcome.decision) {
        case 'commit':
          return { outcome: 'committed', id };
        case 'rollback':
          return { outcome: 'rolledBack', id };
        case 'unknown':
          return { outcome: 'unknown', id, reason: outcome.reason };
      }
    },
  };
}

async function bindInside(
  transaction: LocalTransaction,
  messages: HeldMessages,
  guard: TransactionGuard,
): Promise<void> {
  const { executor, dialect } = transaction;
  if (dialect === 'sqlite' && !(await isSqliteInTransaction(executor))) throw notOpen(transaction);
  // Only in one open transaction does the savepoint outlive the insert.
  const isInside = await (dialect === 'mysql' ? bindAtOnce : bindInTurn)(
    transaction,
    messages,
    guard,
  );
  if (!isInside) throw notOpen(transaction);
  await guard.arm();
}

async function bindInTurn(
  transaction: LocalTransaction,
  messages: HeldMessages,
  guard: TransactionGuard,
): Promise<boolean> {
  try {
    await guard.arm();
  } catch (error) {
    if (meaningOf(error) === 'no open transaction') return false;
    throw error;
  }
  try {
    await messages.bind(transaction);
  } catch (error) {
    throw explained(messages, error);
  }
  return guard.holds();
}

/**
 * MySQL takes a savepoint outside of a transaction without a word. Sent together, so that no statement
 * of a caller who did not await comes between.
 */
async function bindAtOnce(
  transaction: LocalTransaction,
  messages: HeldMessages,
  guard: TransactionGuard,
): Promise<boolean> {
  const [armed, bound, held] = await Promise.allSettled([
    guard.arm(),
    messages.bind(transaction),
    guard.holds(),
  ]);
  if (armed.status === 'rejected') {
    // Layers know what they have ended, and send nothing.
    if (meaningOf(armed.reason) === 'no open transaction') return false;
    throw armed.reason;
  }
  if (bound.status === 'rejected') throw explained(messages, bound.reason);
  if (held.status === 'rejected') throw held.reason;
  return held.value;
}

function explained(messages: HeldMessages, error: unknown): unknown {
  switch (meaningOf(error)) {
    case 'duplicate key':
      return messages.alreadyDecided(error);
    case 'no such table':
      return messages.missingTable(error);
    default:
      return error;
  }
}

function notOpen({ layer }: LocalTransaction): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `no transaction is open on the connection of ${layer} that was passed: it is in autocommit, or the transaction has ended. Begin one and enlist before its COMMIT; no message was prepared`,
  );
}

function ended(id: string): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `the transaction that ${id} was enlisted in has ended: an enlist that was not awaited, a swallowed error, DDL, or a COMMIT, ROLLBACK or BEGIN came between. Roll back; settle() tells what became of it`,
    { details: { id } },
  );
}
