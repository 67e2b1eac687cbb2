import { types } from 'node:util';
import { EscrowError } from '@escrowmq/protocol';
import { DuplicateKey, RowRefused, StoreRefused } from '../sql.js';
import { SERVER_ERRORS, type ServerErrorClass } from './server-errors.js';

/** What to do about an error of MySQL, MariaDB or the way there; its meaning is in server-errors.ts. */
const DEADLOCK_ATTEMPTS_MAX = 6;
/** A pool hands out connections that died while idle; the second or third is fresh. */
const CONNECTION_ATTEMPTS_MAX = 3;

/** What the driver and the system say themselves. */
const LOST_CODE =
  /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST|ENET|PROTOCOL_|POOL_|HANDSHAKE_)/;
/** The driver can not prove who we are, or the server's certificate proves nothing to us. */
const REFUSED_CODE =
  /^(AUTH_SWITCH_|MYSQL_CLEAR_PASSWORD|HANDSHAKE_NO_SSL|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|CERT_|ERR_TLS_)/;

interface MysqlError extends Error {
  code?: string;
  errno?: number;
  fatal?: boolean;
}

/** Errors of sockets may be of another realm, where `instanceof` does not know them. */
const isMysqlError = (error: unknown): error is MysqlError =>
  types.isNativeError(error) || error instanceof Error;

interface Judged {
  class: ServerErrorClass | 'mistake';
  /** Ends the sentence "the MySQL store …". */
  says: string;
}

const GONE: Judged = { class: 'lost', says: 'does not answer' };

function judge(error: unknown): Judged {
  if (error instanceof RowRefused) return { class: error.why, says: error.message };
  if (!isMysqlError(error)) return { class: 'mistake', says: '' };
  const known = error.errno === undefined ? undefined : SERVER_ERRORS.get(error.errno);
  // Galera's write set has a limit, which it tells with the number for any failed COMMIT.
  if (error.errno === 1180 && /error 90\b|message too long/i.test(error.message)) {
    return { class: 'tooLarge', says: 'does not take as much at once' };
  }
  if (known !== undefined) return known;
  const code = error.code ?? '';
  if (REFUSED_CODE.test(code)) return { class: 'refused', says: 'refuses' };
  if (error.fatal === true || LOST_CODE.test(code)) return GONE;
  if (/closed state|Pool is closed/.test(error.message)) return GONE;
  return { class: 'mistake', says: '' };
}

/** What the server left behind is known, so another may have the connection after a rollback. */
export function leavesConnectionUsable(error: unknown): boolean {
  const { class: is } = judge(error);
  return is === 'duplicate' || is === 'runAgain' || is === 'badValue' || is === 'mistake';
}

/**
 * The server answers, and its answer stays the same until somebody changes something there. Its
 * message names what it refuses, never the password.
 */
function refusal(error: unknown): StoreRefused {
  const said = isMysqlError(error) ? error.message : 'access denied';
  return new StoreRefused(
    `the MySQL store refuses: ${said}; check ESCROW_STORE and what its user may do`,
    { cause: error },
  );
}

function unavailable(error: unknown, says: string, attempts: number): EscrowError {
  const code = isMysqlError(error) ? (error.code ?? error.message) : 'unknown';
  return new EscrowError(
    'STORE_UNAVAILABLE',
    `the MySQL store ${says} (${code}); it was tried ${attempts} times`,
    { cause: error },
  );
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats `work` while InnoDB asks for it or the connection was lost; bounded. */
export async function repeating<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const judged = judge(error);
      switch (judged.class) {
        case 'mistake':
          throw error;
        case 'duplicate':
          throw new DuplicateKey(String(error), { cause: error });
        case 'tooLarge':
        case 'badValue':
          throw rowRefused(error, judged.class);
        case 'refused':
          throw refusal(error);
        case 'runAgain':
          if (attempt >= DEADLOCK_ATTEMPTS_MAX) throw unavailable(error, judged.says, attempt);
          break;
        case 'lost':
        case 'unavailable':
          if (attempt >= CONNECTION_ATTEMPTS_MAX) throw unavailable(error, judged.says, attempt);
      }
      // Jitter, so that the two sides of a deadlock do not meet again.
      await pause(5 + Math.random() * 20 * attempt);
    }
  }
}

const rowRefused = (error: unknown, why: RowRefused['why']): RowRefused =>
  error instanceof RowRefused ? error : new RowRefused(why, String(error), { cause: error });
