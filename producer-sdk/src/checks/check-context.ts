import { EscrowError, LIMITS } from '@escrowmq/protocol';

/**
 * What travels with every check of a transaction, so that whoever answers finds the barrier row:
 * the name of the database, where there are several, and the identity of its barrier table.
 */
export interface CheckContext {
  /** As given as `database` in `transaction`, and in the check handler's `databases`. */
  database?: string;
  /** Absent in what was prepared by hand, without this SDK's `transaction`. */
  barrier?: string;
}

/** @throws {EscrowError} INVALID_REQUEST when the name is too long to travel */
export function writeCheckContext(context: CheckContext): string {
  const text = JSON.stringify(context);
  if (Buffer.byteLength(text) <= LIMITS.checkContextBytesMax) return text;
  throw new EscrowError(
    'INVALID_REQUEST',
    `the name of the database is too long: with it the check context has ${Buffer.byteLength(text)} bytes, at most ${LIMITS.checkContextBytesMax} are allowed (checkContextBytesMax)`,
  );
}

/** A text that this SDK did not write is the name of a database, as `prepare` takes it. */
export function readCheckContext(text: string | undefined): CheckContext {
  if (text === undefined) return {};
  const { database, barrier } = parsed(text);
  if (typeof barrier !== 'string') return { database: text };
  return typeof database === 'string' ? { database, barrier } : { barrier };
}

function parsed(text: string): Record<string, unknown> {
  if (!text.startsWith('{')) return {};
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    // A name may begin like that as well.
    return {};
  }
}
