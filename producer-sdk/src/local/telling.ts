import type { LocalDatabase } from '@escrowmq/database';
import { isEscrowError, type MessageData } from '@escrowmq/protocol';
import type { Logger } from '../logger.js';
import type { HeldMessages } from './held-messages.js';

/** What tells the broker how a local transaction ended needs of its caller. */
export interface Telling {
  logger: Logger;
  /** Takes over a promise that nobody waits for; `close` does. */
  runInBackground(work: Promise<void>): void;
  /** Whether whoever called waits for the broker's answer to the commit. */
  waitForCommit: boolean;
}

/** What is known of the messages of a local transaction that has committed. */
export type Released =
  /** Whoever holds them has acknowledged the commit. */
  | 'committed'
  /** They are where they should be, and go without this process. */
  | 'held'
  /** The broker refused to take them, and has none of them. */
  | 'notHeld'
  /** Nobody can say whether they go: the broker refused their commit, or may never have got them. */
  | 'unknown';

/** The local commit is done and stands: a broker that can't be told learns it by its check. */
export async function release(
  telling: Telling,
  messages: HeldMessages,
  messageData: MessageData[] | undefined,
): Promise<Released> {
  const failure = await messages.hold();
  const told = tryRelease(telling.logger, messages, { messageData, failure });
  // What is not held for certain has only this call.
  if (telling.waitForCommit || failure !== undefined) return told;
  telling.runInBackground(told.then(() => undefined));
  return 'held';
}

async function tryRelease(
  logger: Logger,
  messages: HeldMessages,
  { messageData, failure }: { messageData: MessageData[] | undefined; failure: Error | undefined },
): Promise<Released> {
  try {
    await messages.release(messageData);
    return 'committed';
  } catch (error) {
    const fields = { transactionId: messages.id, error };
    if (isRefusal(error)) {
      logger.error(fields, 'committed locally, but the broker refused the commit');
      return isRefusal(failure) ? 'notHeld' : 'unknown';
    }
    if (failure === undefined) {
      logger.warn(fields, 'committed locally, broker not told: its check will commit');
      return 'held';
    }
    logger.error(
      fields,
      'committed locally before the broker acknowledged that it holds the messages, and it can not be told: if it holds none, they are lost',
    );
    return 'unknown';
  }
}

/** An answer, after which nothing of what was asked for is there. */
const isRefusal = (error: unknown) =>
  error !== undefined && !(isEscrowError(error) && error.retryable);

/** What was decided, and what becomes of the messages. */
export type Told =
  | { decision: 'commit'; messages: Released }
  | { decision: 'rollback' }
  | {
      decision: 'unknown';
      reason: string;
      /** What becomes of the messages; ends a sentence. */
      next: string;
    };

/** Decides like a check, and tells the broker what was decided. */
export async function decideAndTell(
  telling: Telling,
  messages: HeldMessages,
  where: { database: LocalDatabase<unknown>; limitMs: number },
): Promise<Told> {
  const outcome = await messages.decide(where.database, where.limitMs);
  const { decision } = outcome;
  switch (decision) {
    case 'commit':
      return { decision, messages: await release(telling, messages, outcome.messageData) };
    case 'rollback':
      await messages.drop();
      return { decision };
    case 'unknown': {
      const { reason, cause } = outcome;
      const isHeld = (await messages.hold()) === undefined;
      const next = isHeld ? messages.whileUnknown : ONLY_IF_HELD;
      telling.logger.warn(
        { transactionId: messages.id, reason, error: cause },
        `the outcome of a failed local transaction is not known yet; ${next}`,
      );
      return { decision, reason, next };
    }
  }
}

const ONLY_IF_HELD =
  'the broker has not acknowledged that it holds its messages, and a check decides only if it does';
