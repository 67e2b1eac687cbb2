import { LIMITS, textOfError } from '@escrowmq/protocol';
import { isMismatch } from './settle/mismatch.js';

/** Why: as a text to be kept and counted, and the error itself, with its stack. */
export interface Caused {
  /** Name and message, cut to 500 characters; of data that fit no schema the whole sentence. */
  cause: string;
  /** What was thrown, whatever it is; absent where nothing was. */
  error?: unknown;
}

/**
 * What was thrown, whatever it is, as one short text for headers and events. What is wrong with data
 * is bounded by itself, and of no use when it is cut.
 */
export const causeOf = (error: unknown): string =>
  isMismatch(error) ? error.message : shortCause(textOfError(error));

/** As long as a receipt takes it. */
export function shortCause(text: string): string {
  // Cut between characters: half a surrogate pair is not valid UTF-8 and would break the header.
  return text.slice(0, LIMITS.causeCharsMax).replace(/[\uD800-\uDBFF]$/, '');
}

export const causedBy = (error: unknown): Caused => ({ cause: causeOf(error), error });
