import { LIMITS } from '@escrowmq/protocol';

/** An error as one short text, for headers, receipts and events. */
export function causeOf(error: unknown): string {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  // Cut between characters: half a surrogate pair is not valid UTF-8 and would break the header.
  return text.slice(0, LIMITS.causeCharsMax).replace(/[\uD800-\uDBFF]$/, '');
}
