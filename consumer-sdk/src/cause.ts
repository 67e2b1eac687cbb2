import { LIMITS, textOfError } from '@escrowmq/protocol';

/** Why: as a text to be kept and counted, and the error itself, with its stack. */
export interface Caused {
  /** Name and message, cut to 500 characters. */
  cause: string;
  /** What was thrown, whatever it is; absent where nothing was. */
  error?: unknown;
}

/** What was thrown, whatever it is, as one short text for headers, receipts and events. */
export function causeOf(error: unknown): string {
  const text = textOfError(error).slice(0, LIMITS.causeCharsMax);
  // Cut between characters: half a surrogate pair is not valid UTF-8 and would break the header.
  return text.replace(/[\uD800-\uDBFF]$/, '');
}

export const causedBy = (error: unknown): Caused => ({ cause: causeOf(error), error });
