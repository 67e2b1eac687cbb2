import { attempt } from '@escrowmq/protocol';
import type { Meaning, Said } from './meaning.js';
import { isRolledBackByMysql, saidByMysql } from './mysql-errors.js';
import { isRolledBackByPostgres, saidByPostgres } from './postgres-errors.js';
import { saidBySqlite } from './sqlite-errors.js';

/*
 * What a database server said, whoever passes it on. Drivers give the server's own number or code;
 * query builders pass that error on or wrap it, each in its own way, so it is looked for where they
 * put it. The numbers and codes themselves: mysql-errors.ts, postgres-errors.ts, sqlite-errors.ts.
 */

/** Where layers keep the error they wrap: Node, Sequelize (twice), TypeORM, Prisma. */
const WRAPPED_IN = ['cause', 'original', 'parent', 'driverError', 'meta', 'driverAdapterError'];
/** No layer wraps deeper; a cycle ends as well. */
const DEPTH_MAX = 6;

/** `undefined` for everything that no server said: a lost connection, a limit, a bug. */
export function meaningOf(error: unknown): Meaning | undefined {
  const said = saidIn(error);
  return said === 'connection lost' ? undefined : said;
}

/** True when the server answered, so that the connection is there and its state is known. */
export function isAnswered(error: unknown): boolean {
  return meaningOf(error) !== undefined;
}

/**
 * True when the server has answered that it serves nobody, or takes no writes. The connection is of
 * no use to whoever gets it next, while a new one may reach another node.
 */
export function servesNobody(error: unknown): boolean {
  const meaning = meaningOf(error);
  return meaning === 'unavailable' || meaning === 'read-only';
}

/** True when the database can't be reached, or did not do now what it might do later. */
export function isAway(error: unknown): boolean {
  const said = saidIn(error);
  if (said === undefined) return search(error, saidByClient) ?? false;
  return said === 'connection lost' || said === 'interrupted' || servesNobody(error);
}

/** True when the service has closed what led to its database: nobody gets a connection there any more. */
export function isClosed(error: unknown): boolean {
  return search(error, saidByClosed) ?? false;
}

/** True when an error on COMMIT proves that nothing of the transaction is durable. */
export function provesRollback(error: unknown): boolean {
  const proof = search(error, (each) => isRolledBackByMysql(each) ?? isRolledBackByPostgres(each));
  if (proof !== undefined) return proof;
  const meaning = meaningOf(error);
  // SQLite refuses a COMMIT before it does anything; without a transaction one may have come before.
  return (
    meaning !== undefined &&
    !['unavailable', 'interrupted', 'no open transaction'].includes(meaning)
  );
}

const saidIn = (error: unknown): Said | undefined =>
  search(
    error,
    (each) => saidByMysql(each) ?? saidBySqlite(each) ?? saidByPostgres(each) ?? saidByLayer(each),
  );

/**
 * The first that `read` finds in the error and in what it wraps. A callback may throw what can't be
 * looked at: nobody said that.
 */
const search = <T>(error: unknown, read: (error: object) => T | undefined): T | undefined =>
  attempt(() => searchIn(error, read, DEPTH_MAX), undefined);

function searchIn<T>(
  error: unknown,
  read: (error: object) => T | undefined,
  depth: number,
): T | undefined {
  if (typeof error !== 'object' || error === null || depth === 0) return undefined;
  const found = read(error);
  if (found !== undefined) return found;
  const fields = error as Record<string, unknown>;
  for (const name of WRAPPED_IN) {
    const inner = searchIn(fields[name], read, depth - 1);
    if (inner !== undefined) return inner;
  }
  return undefined;
}

/** How layers refuse a statement through a transaction that they have ended themselves. */
const LAYER_ENDED = [
  // Knex
  /^Transaction query already complete/,
  // Kysely
  /^Transaction is already (committed|rolled back)/,
  // Sequelize, which rolls back by itself after a deadlock on MySQL
  /^(commit|rollback) has been called on this transaction/,
  // Prisma, after its own timeout as well
  /Transaction already closed/,
];

function saidByLayer(error: object): Meaning | undefined {
  if (!('message' in error) || typeof error.message !== 'string') return undefined;
  const { message } = error;
  return LAYER_ENDED.some((pattern) => pattern.test(message)) ? 'no open transaction' : undefined;
}

/** Of Node's sockets and names, mysql2, MariaDB's connector; of Prisma what has no server's error. */
const AWAY_CODES =
  /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_|EHOST|ENET|PROTOCOL_|POOL_|HANDSHAKE_|ER_(CONNECTION|SOCKET|POOL|GET_CONN|CMD_CONN)|P100[128]$|P1017$|P2024$|P2037$)/;
/** Of Knex, Sequelize, Prisma's adapters. */
const AWAY_NAMES =
  /^(KnexTimeoutError|Sequelize(Connection|Host|InvalidConnection)\w*|(ConnectionClosed|DatabaseNotReachable|SocketTimeout|TooManyConnections))$/;
/** Errors that have nothing else: of pools that were ended, of connections that were lost before. */
const AWAY_MESSAGES =
  /\b(closed state|pool is closed|connection terminated|connection ended|not queryable|(pool|client) after calling end|client was closed|timeout exceeded when trying to connect|unable to acquire a connection|driver has already been destroyed|connection is (not established|closed)|connection lost|socket hang up)\b/i;

/**
 * What drivers and layers say once they were closed. A connection that the server has closed is none of
 * it: that may come back.
 */
const CLOSED_MESSAGES =
  /\b(pool is closed|pool after calling end|unable to acquire a connection|driver has already been destroyed|connection manager was closed|connection is not established with|driver not connected|database (connection )?is not open)\b/i;

/** True, or nothing: what it wraps may say more. */
function saidByClosed(error: object): true | undefined {
  const { message } = error as { message?: unknown };
  return typeof message === 'string' && CLOSED_MESSAGES.test(message) ? true : undefined;
}

/** True, or nothing: what it wraps may say more. */
function saidByClient(error: object): true | undefined {
  const { code, name, kind, fatal, message } = error as Record<string, unknown>;
  const isIn = (pattern: RegExp, value: unknown) =>
    typeof value === 'string' && pattern.test(value);
  const isAway =
    // mysql2: the connection can't be used after it.
    fatal === true ||
    isIn(AWAY_CODES, code) ||
    isIn(AWAY_NAMES, name) ||
    isIn(AWAY_NAMES, kind) ||
    isIn(AWAY_MESSAGES, message);
  return isAway ? true : undefined;
}
