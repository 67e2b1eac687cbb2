import {
  EscrowError,
  isEscrowError,
  type MessageData,
  type TransactionAnswer,
} from '@escrowmq/protocol';
import type { Logger } from '../logger.js';
import { insertBarrier, missingTable, setBarrierData } from './barrier.js';
import { settleOutcome } from './decide-outcome.js';
import type { HeldMessages, OpenMessage, TransactionSize } from './held-messages.js';

/**
 * Messages held by the broker: prepared there, bound by a barrier row, released by the broker's
 * commit. When its commit gets lost, the broker's check finds the barrier row.
 */
export interface EscrowDeps {
  id: string;
  open: readonly OpenMessage[];
  size: TransactionSize;
  prepare(): Promise<TransactionAnswer>;
  commit(messageData: MessageData[] | undefined): Promise<TransactionAnswer>;
  rollback(): Promise<TransactionAnswer>;
  /** Takes over a promise that nobody waits for; `close` does. */
  runInBackground(work: Promise<void>): void;
  logger: Logger;
}

export function escrow(deps: EscrowDeps): HeldMessages {
  const { id, open, size } = deps;
  let held: Promise<Error | undefined> | undefined;

  async function sendRollback(): Promise<void> {
    try {
      await deps.rollback();
    } catch (error) {
      if (isEscrowError(error) && error.code === 'TRANSACTION_NOT_FOUND') return;
      deps.logger.warn(
        { transactionId: id, error },
        'rolled back locally, broker not told: its check will roll back',
      );
    }
  }

  return {
    id,
    open,
    size,
    hold() {
      held ??= deps.prepare().then(
        (answer) => rolledBackAlready(id, answer),
        (error: Error) => error,
      );
      return held;
    },
    bind: (on) => insertBarrier(on, id, 'commit'),
    supply: (on, messageData) => setBarrierData(on, id, JSON.stringify(messageData)),
    decide: (database, limitMs) => settleOutcome(database, id, limitMs),
    async release(messageData) {
      try {
        await deps.commit(messageData);
      } catch (error) {
        if (!isEscrowError(error) || error.code !== 'TRANSACTION_NOT_FOUND') throw error;
        // It was there before the local COMMIT: its store was set back, or lost what it had
        // acknowledged. Or it was not, and the callback committed by itself. What it had of ours,
        // or should have, is here still.
        const wasHeld = (await held) === undefined;
        deps.logger.error(
          { transactionId: id, error },
          wasHeld
            ? 'the broker has lost a prepared transaction; it is prepared and committed once more'
            : 'committed locally before the broker held the messages; they are prepared and committed now',
        );
        await deps.prepare();
        await deps.commit(messageData);
      }
    },
    async drop() {
      const failure = await held;
      if (failure === undefined) return sendRollback();
      // It may have arrived all the same. Nobody waits for a broker that did not answer just now.
      if (isEscrowError(failure) && failure.code === 'BROKER_UNREACHABLE') {
        deps.runInBackground(sendRollback());
      }
      // Any other failure is a refusal: the broker holds nothing of ours to roll back.
    },
    alreadyDecided: (cause) =>
      new EscrowError(
        'ALREADY_ROLLED_BACK',
        `a check rolled transaction ${id} back before its local transaction began; nothing was written, start a new one`,
        { cause, details: { id } },
      ),
    whileUnknown: 'a check will decide whether its messages are sent',
    whileHeld: 'the broker holds its messages, and its check will commit them',
    missingTable,
  };
}

/** A prepare may be answered late, after a repeat: by then an operator may have decided. */
function rolledBackAlready(id: string, answer: TransactionAnswer): EscrowError | undefined {
  if (answer.decision?.decision !== 'rollback') return undefined;
  return new EscrowError(
    'ALREADY_ROLLED_BACK',
    `transaction ${id} was rolled back at the broker by ${answer.decision.by} before its local COMMIT; start a new one`,
    { details: { id, decision: answer.decision } },
  );
}
