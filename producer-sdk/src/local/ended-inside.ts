import { ENDINGS } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import type { HeldMessages } from './held-messages.js';
import type { Released, Told } from './telling.js';

/**
 * The error for a callback that ended its transaction by itself: what became of what it wrote, and of
 * the messages.
 */
export function endedInside(held: HeldMessages, told: Told, cause?: unknown): EscrowError {
  const { id } = held;
  const { decision: outcome } = told;
  const messages = told.decision === 'commit' ? { messages: told.messages } : {};
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `local transaction ${id} ended inside its callback: ${ENDINGS}; ${consequenceOf(told, held)}`,
    { cause, details: { id, outcome, ...messages } },
  );
}

function consequenceOf(told: Told, messages: HeldMessages): string {
  switch (told.decision) {
    case 'commit':
      return `what it wrote until then is committed${OF_MESSAGES[told.messages](messages)}`;
    case 'rollback':
      return 'the row that binds its messages is gone, so they are dropped; what it wrote after that may be durable';
    case 'unknown':
      return told.next;
  }
}

const OF_MESSAGES: Record<Released, (messages: HeldMessages) => string> = {
  committed: () => ', and so are its messages',
  held: ({ whileHeld }) => `; ${whileHeld}`,
  notHeld: () =>
    ', but the broker has refused its messages and holds none of them: send them again',
  unknown: () =>
    '; whether its messages will be sent is not known, and producer.query(id) tells whether the broker has them',
};
