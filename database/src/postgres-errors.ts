import type { Said } from './meaning.js';

/** What the SQL states of PostgreSQL mean to a service that sends statements. */
const POSTGRES_ERRORS: Readonly<Record<string, Said>> = {
  '23505': 'duplicate key',
  '42P01': 'no such table',
  '55P03': 'locked',
  '40P01': 'deadlock',
  '40001': 'not serializable',
  '25P01': 'no open transaction',
  '25P02': 'no open transaction',
  '3B001': 'no open transaction',
  '25006': 'read-only',
  '42501': 'refused',
  // The statement was cancelled, or took longer than it may.
  '57014': 'interrupted',
};

/**
 * The server's last word on a connection: an administrator's command, a crash, a shutdown, a session
 * that was idle for too long; or its first, when it admits nobody (too many connections, no such
 * database, no such user). Codes in 45 are none of PostgreSQL's: MariaDB's connector gives them to a
 * lost connection, and Prisma hands both kinds on in the same way.
 */
const CONNECTION_LOST = /^(57P0|08|25P03|25P04|28|3D000|45|53300)/;
/** Disk full, out of memory, a limit of the server's; an error of its operating system. */
const UNAVAILABLE = /^(53|58)/;
/**
 * To COMMIT: nobody knows (statement_completion_unknown), or there was nothing left to commit, and
 * whoever ended the transaction may have committed it.
 */
const COMMIT_UNKNOWN = /^(25P0|3B|40003|53|58)/;
const SQL_STATE = /^[0-9A-Z]{5}$/;

function stateIn(error: object): string | undefined {
  const code =
    'code' in error && 'severity' in error
      ? error.code
      : 'originalCode' in error
        ? error.originalCode
        : undefined;
  return typeof code === 'string' && SQL_STATE.test(code) ? code : undefined;
}

export function saidByPostgres(error: object): Said | undefined {
  const state = stateIn(error);
  if (state === undefined) return undefined;
  if (CONNECTION_LOST.test(state)) return 'connection lost';
  return POSTGRES_ERRORS[state] ?? (UNAVAILABLE.test(state) ? 'unavailable' : 'other');
}

/** PostgreSQL refuses COMMIT before it is durable. `undefined` for what is no error of it. */
export function isRolledBackByPostgres(error: object): boolean | undefined {
  const state = stateIn(error);
  if (state === undefined) return undefined;
  return !CONNECTION_LOST.test(state) && !COMMIT_UNKNOWN.test(state);
}
