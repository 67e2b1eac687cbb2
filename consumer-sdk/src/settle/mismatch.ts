import { attempt } from '@escrowmq/protocol';

/**
 * A message that no schema of its subscription takes. It says so as often as it is asked, so nothing is
 * tried again. Told by its class: only this SDK throws it, and no handler ever sees one.
 */
export class Mismatch extends Error {
  override readonly name = 'Mismatch';
}

/** Never throws, whatever it is asked about. */
export const isMismatch = (error: unknown): error is Mismatch =>
  attempt(() => error instanceof Mismatch, false);
