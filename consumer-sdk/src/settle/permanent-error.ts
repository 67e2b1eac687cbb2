import { attempt, isErrorNamed, isEscrowError } from '@escrowmq/protocol';

/**
 * Thrown by a handler to say that trying again is of no use: the message goes straight to the
 * dead-letter queue.
 *
 * @example
 * if (account === undefined) throw new PermanentError(`no account ${data.accountId}`);
 */
export class PermanentError extends Error {
  /** What it is known by, whichever copy of the package made it. */
  override readonly name = 'PermanentError';
}

/** By name, so that an error of another copy of this package counts as well. */
export function isPermanentError(error: unknown): boolean {
  return isErrorNamed(error, 'PermanentError') || isAppliedInPart(error);
}

/** Tried again it would be a duplicate, and acknowledged with a part of its work missing. */
function isAppliedInPart(error: unknown): boolean {
  return isEscrowError(error) && attempt(() => error.details.appliedInPart === true, false);
}
