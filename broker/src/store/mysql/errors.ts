import { types } from 'node:util';
import { EscrowError } from '@escrowmq/protocol';
import { DuplicateKey } from '../sql.js';

/** What to do about an error of MySQL, MariaDB or the way there. */
const DEADLOCK_ATTEMPTS_MAX = 6;
/** A pool hands out connections that died while idle; the second or third is fresh. */
const CONNECTION_ATTEMPTS_MAX = 3;

const DUPLICATE_ENTRY = 1062;
/** Lock wait timeout and deadlock: InnoDB asks for the transaction to be run again. */
const RUN_AGAIN = new Set([1205, 1213]);
/** Too many connections, shutting down, disk or table full, read-only, killed, timed out. */
const UNAVAILABLE_ERRNO = new Set([
  1021, 1040, 1053, 1114, 1158, 1159, 1160, 1161, 1203, 1290, 1317, 1792, 1836, 1927, 3169,
]);
const UNAVAILABLE_CODE =
  /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST|ENET|PROTOCOL_|POOL_|HANDSHAKE_)/;

/**
 * Access denied (user, database, statement), no such database, host not allowed: the server answers
 * and the answer is no. Its message names what it refuses, never the password.
 */
const REFUSED_ERRNO = new Set([1044, 1045, 1049, 1129, 1130, 1142, 1227, 1698]);

interface MysqlError extends Error {
  code?: string;
  errno?: number;
  fatal?: boolean;
}

/** Errors of sockets may be of another realm, where `instanceof` does not know them. */
const isMysqlError = (error: unknown): error is MysqlError =>
  types.isNativeError(error) || error instanceof Error;

export function kindOf(
  error: unknown,
): 'duplicate' | 'runAgain' | 'unavailable' | 'refused' | 'other' {
  if (!isMysqlError(error)) return 'other';
  if (error.errno === DUPLICATE_ENTRY) return 'duplicate';
  if (error.errno !== undefined && REFUSED_ERRNO.has(error.errno)) return 'refused';
  if (error.errno !== undefined && RUN_AGAIN.has(error.errno)) return 'runAgain';
  if (error.errno !== undefined && UNAVAILABLE_ERRNO.has(error.errno)) return 'unavailable';
  if (error.fatal === true || UNAVAILABLE_CODE.test(error.code ?? '')) return 'unavailable';
  return /closed state|Pool is closed/.test(error.message) ? 'unavailable' : 'other';
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats `work` while InnoDB asks for it or the connection was lost; bounded. */
export async function repeating<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const kind = kindOf(error);
      if (kind === 'duplicate') throw new DuplicateKey(String(error), { cause: error });
      if (kind === 'other') throw error;
      if (kind === 'refused') {
        const said = isMysqlError(error) ? error.message : 'access denied';
        throw new EscrowError(
          'STORE_UNAVAILABLE',
          `the MySQL store refuses: ${said}; check ESCROW_STORE and what its user may do`,
          { cause: error },
        );
      }
      const attemptsMax = kind === 'runAgain' ? DEADLOCK_ATTEMPTS_MAX : CONNECTION_ATTEMPTS_MAX;
      if (attempt >= attemptsMax) {
        const code = isMysqlError(error) ? (error.code ?? error.message) : 'unknown';
        throw new EscrowError(
          'STORE_UNAVAILABLE',
          `the MySQL store does not answer (${code}); it was tried ${attempt} times`,
          { cause: error },
        );
      }
      // Jitter, so that the two sides of a deadlock do not meet again.
      await pause(5 + Math.random() * 20 * attempt);
    }
  }
}
