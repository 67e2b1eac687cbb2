import type { LocalDatabase } from '@escrowmq/database';
import { isEscrowError, type MessageData } from '@escrowmq/protocol';
import type { Logger } from '../logger.js';
import type { Outcome } from './decide-outcome.js';
import type { HeldMessages } from './held-messages.js';

/** What tells the broker how a local transaction ended needs of its caller. */
export interface Telling {
  logger: Logger;
  /** Takes over a promise that nobody waits for; `close` does. */
  runInBackground(work: Promise<void>): void;
  /** Whether whoever called waits for the broker's answer to the commit. */
  waitForCommit: boolean;
}

/**
 * The local commit is done and stands: a broker that can't be told learns it by its check.
 *
 * @returns whether the broker has acknowledged it
 */
export async function release(
  telling: Telling,
  messages: HeldMessages,
  messageData: MessageData[] | undefined,
): Promise<boolean> {
  const told = tryRelease(telling.logger, messages, messageData);
  if (telling.waitForCommit) return told;
  telling.runInBackground(told.then(() => undefined));
  return false;
}

async function tryRelease(
  logger: Logger,
  messages: HeldMessages,
  messageData: MessageData[] | undefined,
): Promise<boolean> {
  try {
    await messages.release(messageData);
    return true;
  } catch (error) {
    const fields = { transactionId: messages.id, error };
    if (isEscrowError(error) && error.retryable) {
      logger.warn(fields, 'committed locally, broker not told: its check will commit');
    } else {
      logger.error(fields, 'committed locally, but the broker refused the commit');
    }
    return false;
  }
}

/** Decides like a check, and tells the broker what was decided. */
export async function decideAndTell(
  telling: Telling,
  messages: HeldMessages,
  where: { database: LocalDatabase<unknown>; limitMs: number },
): Promise<Outcome> {
  const outcome = await messages.decide(where.database, where.limitMs);
  switch (outcome.decision) {
    case 'commit':
      await release(telling, messages, outcome.messageData);
      break;
    case 'rollback':
      await messages.drop();
      break;
    case 'unknown':
      telling.logger.warn(
        { transactionId: messages.id, reason: outcome.reason, error: outcome.cause },
        `the outcome of a failed local transaction is not known yet; ${messages.whileUnknown}`,
      );
  }
  return outcome;
}
