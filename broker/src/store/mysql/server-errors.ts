/*
 * Every error of MySQL, MariaDB, Galera and Group Replication that a driver shows to a broker, and what
 * it means for the store. What is not here is a mistake of ours: statements are fixed texts with bound
 * values, so a server that does not understand one was asked wrongly.
 *
 * | class         | the statement          | the connection | a caller gets              |
 * |---------------|------------------------|----------------|----------------------------|
 * | `duplicate`   | changed nothing        | stays          | what the store makes of it |
 * | `runAgain`    | changed nothing        | stays          | nothing, or a 503          |
 * | `lost`        | may have been done     | dropped        | nothing, or a 503          |
 * | `unavailable` | changed nothing        | dropped        | nothing, or a 503          |
 * | `refused`     | changed nothing        | dropped        | a 503 with what is missing |
 * | `tooLarge`    | changed nothing        | dropped        | a 413, alone               |
 * | `badValue`    | changed nothing        | stays          | a 500, alone               |
 *
 * What is unavailable is dropped as well: behind a name or a proxy the next connection may reach the
 * server that took over, while a pooled one would go on asking the one that was demoted.
 */

export type ServerErrorClass =
  | 'duplicate'
  | 'runAgain'
  | 'lost'
  | 'unavailable'
  | 'refused'
  | 'tooLarge'
  | 'badValue';

export interface ServerError {
  class: ServerErrorClass;
  /** Ends the sentence "the MySQL store …". */
  says: string;
}

const entries = (
  is: ServerErrorClass,
  says: string,
  numbers: readonly number[],
): [number, ServerError][] => numbers.map((number) => [number, { class: is, says }]);

export const SERVER_ERRORS: ReadonlyMap<number, ServerError> = new Map([
  // 1586 names the key, 1022 is the storage engine's own.
  ...entries('duplicate', 'has this key already', [1022, 1062, 1586]),

  // Lock wait and deadlock; a Galera node that lost at certification answers 1213 at any statement,
  // or 1180 at COMMIT, Group Replication 3101 at COMMIT. MariaDB from 11.6 on tells by 1020 that a row
  // has changed since it was read. 1412: an ALTER came in between; 1689, 3058, 3132, 3572: lock waits
  // that ended early.
  ...entries(
    'runAgain',
    'is too busy: others hold the same rows',
    [1020, 1180, 1205, 1213, 1412, 1613, 1614, 1689, 3058, 3101, 3132, 3133, 3572],
  ),

  // Shutting down, killed, cut off, out of step. 1317: somebody killed the statement, and whether the
  // connection goes with it nobody knows. 2xxx are clients' numbers; proxies pass them on.
  ...entries(
    'lost',
    'ended the connection',
    [
      1042, 1043, 1053, 1077, 1078, 1079, 1080, 1152, 1154, 1155, 1156, 1157, 1158, 1159, 1160,
      1161, 1184, 1189, 1190, 1317, 1835, 1927, 2000, 2002, 2003, 2005, 2006, 2012, 2013, 2014,
      2027, 2055, 3168, 3169, 4031,
    ],
  ),

  // A replica or a server that was demoted (super_read_only, read_only, a Group Replication secondary
  // say 1290), a read-only transaction by default, tables or a schema that may only be read.
  ...entries(
    'unavailable',
    'is read-only',
    [1036, 1207, 1223, 1290, 1792, 1836, 1874, 3032, 3989, 4156],
  ),
  ...entries('unavailable', 'is full', [1021, 1026, 1114, 1878, 3170, 3675]),
  // A Galera node without its majority or not in step yet (1047); Group Replication without a majority,
  // in error, or while another member takes over.
  ...entries(
    'unavailable',
    'is part of a cluster that can not serve now',
    [1047, 3100, 3663, 3781, 3782, 3796, 3797, 3798],
  ),
  ...entries(
    'unavailable',
    'is at its limits',
    [1037, 1038, 1040, 1041, 1135, 1203, 1206, 1226, 1461, 1637, 1969, 3024, 3950, 3985],
  ),
  // 1030 is what a storage engine says that has no number of its own, 1105 what nobody has a number for.
  ...entries('unavailable', 'has a fault of its own', [1030, 1105, 1181, 1192, 1815]),
  ...entries(
    'unavailable',
    'has damaged tables',
    [126, 1034, 1035, 1194, 1195, 1712, 1817, 1877, 3000],
  ),

  // Access denied for user, database, table, column, routine or operation; host not allowed or blocked;
  // no such database; password expired, account locked; a way to prove oneself that one side lacks;
  // encryption demanded. 3098: Group Replication does not take these tables. 1235: not this engine.
  ...entries(
    'refused',
    'refuses',
    [
      1044, 1045, 1046, 1049, 1129, 1130, 1142, 1143, 1227, 1235, 1251, 1275, 1370, 1410, 1419,
      1524, 1698, 1820, 1862, 1873, 2026, 2059, 2061, 3098, 3118, 3159, 3202, 3879, 3955, 4151,
    ],
  ),

  // A packet, a row, a value or a write set beyond the server's limits.
  ...entries(
    'tooLarge',
    'does not take as much at once',
    [1118, 1153, 1162, 1197, 1301, 1406, 2020, 3068, 3231],
  ),
  // Constraints and values of one row; our limits should have kept them out.
  ...entries(
    'badValue',
    'does not take a value',
    [1048, 1264, 1265, 1292, 1366, 1367, 1690, 3140, 3819, 4025],
  ),
]);
