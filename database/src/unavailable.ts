import { attempt, EscrowError, isEscrowError, textOfError } from '@escrowmq/protocol';
import { isAway } from './server-errors.js';

/**
 * What to throw for an error of the SDK's own statements: DATABASE_UNAVAILABLE, with it as the cause,
 * where it says that the database is away or serves nobody now; the error itself otherwise.
 */
export function unavailable(error: unknown, layer: string): unknown {
  if (isEscrowError(error) || !isAway(error)) return error;
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `the local database behind ${layer} does not serve: ${messageOf(error)}`,
    { cause: error },
  );
}

/** The same for an error of getting a connection, or of BEGIN on it: whatever it is, there is none. */
export function noConnection(error: unknown, layer: string): unknown {
  if (isEscrowError(error)) return error;
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `${layer} got no database connection: ${messageOf(error)}; nothing was written`,
    { cause: error },
  );
}

/** With its code: a refused connection to a name of several addresses has no other words. */
function messageOf(error: unknown): string {
  const said = textOfError(error);
  const code = attempt(() => (error as { code?: unknown }).code, undefined);
  return typeof code === 'string' && !said.includes(code) ? `${said} (${code})` : said;
}
