import type { Said } from './meaning.js';

/**
 * What the error numbers of MySQL and MariaDB, Galera and Group Replication mean to a service that
 * sends statements. The broker has a table of its own for its store (broker/src/store/mysql/errors.ts),
 * as the two packages share no floor; a test holds the two together.
 */
const NUMBERS: Readonly<Record<Exclude<Said, 'not serializable' | 'other'>, readonly number[]>> = {
  // Of any key, of a named one, of a storage engine below.
  'duplicate key': [1022, 1062, 1586],
  'no such table': [1146],
  // By waiting, with NOWAIT, for a lock of a whole table, of a name; an ALTER came in between.
  locked: [1205, 1412, 1689, 3058, 3132, 3133, 3572],
  // Somebody else was first, and the server has rolled the whole transaction back: a deadlock or a
  // failed certification of Galera, the same for a branch of XA, a row that has changed under a
  // snapshot (MariaDB, innodb_snapshot_isolation), a failed certification of Group Replication.
  deadlock: [1020, 1213, 1613, 1614, 3101],
  'no open transaction': [1305],
  // --read-only and --super-read-only, a transaction that may only read, the old read-only mode; a
  // table, a lock or a schema that admits no writes.
  'read-only': [1036, 1207, 1223, 1290, 1792, 1836, 1874, 3989, 4156],
  // The server ends the connection: at its shutdown, because somebody killed it (MariaDB, MySQL), as
  // it was idle for too long, or as it can't read or write any more.
  'connection lost': [
    1042, 1043, 1053, 1077, 1078, 1079, 1080, 1152, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161,
    1184, 1189, 1190, 1835, 1927, 3168, 3169, 4031,
  ],
  unavailable: [
    // Disk full, table full.
    1021, 1026, 1114, 1878, 3170, 3675,
    // Out of memory, of threads, of locks; too many connections: of all, of a user, in an hour.
    1037, 1038, 1040, 1041, 1135, 1203, 1206, 1226, 1461, 1637, 3950, 3985,
    // A Galera node without a majority or not in step yet.
    1047,
    // Offline mode; a hook of Group Replication failed; its wait for what came before or for the
    // others ended (group_replication_consistency).
    3032, 3100, 3663, 3781, 3782, 3796, 3797, 3798,
    // COMMIT failed, and by which half of it is not said.
    1180,
    // "Unknown error": proxies, and plug-ins that replicate; an engine that has no number for it.
    1030, 1105, 1181, 1192, 1815,
    // Damaged tables.
    126, 1034, 1035, 1194, 1195, 1712, 1817, 1877, 3000,
    // ProxySQL reaches no server.
    9001,
  ],
  // Killed; longer than it may take (MariaDB, MySQL).
  interrupted: [1317, 1969, 3024],
  // Access to a database, at all, to a table, a column, a routine; no such database; the host may
  // not, or is blocked; a right or a feature is missing; the password has expired; the account is
  // locked (MySQL, MariaDB); Group Replication does not take the table.
  refused: [
    1044, 1045, 1046, 1049, 1129, 1130, 1142, 1143, 1227, 1235, 1251, 1275, 1370, 1410, 1419, 1524,
    1698, 1820, 1862, 1873, 3098, 3118, 3159, 3202, 3879, 3955, 4151,
  ],
};

export const MYSQL_ERRORS: ReadonlyMap<number, Said> = new Map(
  Object.entries(NUMBERS).flatMap(([said, numbers]) =>
    numbers.map((number): [number, Said] => [number, said as Said]),
  ),
);

/**
 * Answers to COMMIT after which nothing of the transaction is durable, for certain. Others may come
 * from behind the point where it is (1180, 3100, 1047), or leave it open.
 */
const ROLLED_BACK_BY_COMMIT = new Set([1213, 1614, 3101]);

/** What clients say of a lost connection, some of it passed on by proxies (2003, 2006, 2013). */
const CLIENT_MIN = 2_000;
const CLIENT_MAX = 2_999;
/** Numbers that MariaDB's connector gives to what it says itself. */
const MARIADB_CLIENT_MIN = 45_000;

/** The server's number in an error of mysql2, mysql or mariadb, or as Prisma hands it on. */
function numberIn(error: object): number | undefined {
  // What mysql2 itself says (ECONNRESET) has a number too, but no SQL state.
  if ('errno' in error && 'sqlState' in error && typeof error.errno === 'number') {
    return error.errno;
  }
  // Prisma's adapter for MariaDB hands on the number as text.
  if ('originalCode' in error && /^\d{4}$/.test(String(error.originalCode))) {
    return Number(error.originalCode);
  }
  return undefined;
}

export function saidByMysql(error: object): Said | undefined {
  const number = numberIn(error);
  if (number === undefined) return undefined;
  if (number >= MARIADB_CLIENT_MIN) return 'connection lost';
  if (number >= CLIENT_MIN && number <= CLIENT_MAX) return 'connection lost';
  return MYSQL_ERRORS.get(number) ?? 'other';
}

/** `undefined` for what is no error of MySQL. */
export function isRolledBackByMysql(error: object): boolean | undefined {
  const number = numberIn(error);
  return number === undefined ? undefined : ROLLED_BACK_BY_COMMIT.has(number);
}
