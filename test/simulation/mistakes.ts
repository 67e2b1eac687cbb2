import type { CheckAnswer, CheckRequest } from '@escrowmq/protocol';
import { idValue } from '../../producer-sdk/src/local/barrier-sql.js';
import type { HeldMessages } from '../../producer-sdk/src/local/held-messages.js';
import type { MemoryDatabase } from './memory-database.js';

/**
 * Mistakes that can be planted, each a design that looks right and is not. A simulation that does not
 * find them would find nothing.
 */
export interface Mistakes {
  /** A check reads the barrier row, and takes a missing one for a rollback. */
  checkOnlyLooks: boolean;
  /** After an error on COMMIT the producer takes its transaction for rolled back. */
  rollsBackAfterAmbiguousCommit: boolean;
  /** The broker marks a message as forwarded when it was sent, and not when it was confirmed. */
  marksBeforeConfirm: boolean;
  /** The consumer applies whatever comes. */
  consumerDoesNotDedupe: boolean;
  /** A verdict moves a transaction whatever was decided before. */
  unguardedVerdict: boolean;
}

export const NO_MISTAKES: Mistakes = {
  checkOnlyLooks: false,
  rollsBackAfterAmbiguousCommit: false,
  marksBeforeConfirm: false,
  consumerDoesNotDedupe: false,
  unguardedVerdict: false,
};

export const MISTAKE_NAMES = Object.keys(NO_MISTAKES) as (keyof Mistakes)[];

export function brokenDecider(
  database: MemoryDatabase,
): (check: CheckRequest) => Promise<CheckAnswer> {
  return async ({ id }) => {
    const row = database.rows.get(`barrier ${idValue(id)}`);
    return { id, decision: row === 'commit' ? 'commit' : 'rollback' };
  };
}

export function brokenMessages(messages: HeldMessages): HeldMessages {
  return { ...messages, decide: async () => ({ decision: 'rollback' }) };
}
