import { EscrowError } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { SERVER_ERRORS } from '../../broker/src/store/mysql/server-errors.js';
import type { Meaning, Said } from '../../database/src/meaning.js';
import { MYSQL_ERRORS } from '../../database/src/mysql-errors.js';
import {
  isAnswered,
  isAway,
  meaningOf,
  provesRollback,
  servesNobody,
} from '../../database/src/server-errors.js';
import { noConnection, unavailable } from '../../database/src/unavailable.js';

/** As mysql2 passes on what a server says. */
const byMysql = (errno: number) =>
  Object.assign(new Error(`error ${errno}`), { errno, sqlState: 'HY000', code: `ER_${errno}` });
const byPostgres = (code: string) => Object.assign(new Error(code), { code, severity: 'ERROR' });
const bySqlite = (code: string) => Object.assign(new Error(code), { code });

describe('X2: what a server says', () => {
  test.each<[Meaning | undefined, readonly number[]]>([
    ['duplicate key', [1022, 1062, 1586]],
    ['no such table', [1146]],
    ['locked', [1205, 3572]],
    // 1020 is how MariaDB says that a row has changed under a snapshot.
    ['deadlock', [1020, 1213, 1614, 3101]],
    ['no open transaction', [1305]],
    ['read-only', [1290, 1792, 1836]],
    [undefined, [1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 3169, 4031, 45_028]],
    ['unavailable', [1021, 1040, 1047, 1105, 1114, 1180, 1203, 1226, 3032, 3100, 9001]],
    ['unavailable', [3796, 3797, 3798]],
    ['interrupted', [1317, 1969, 3024]],
    ['refused', [1044, 1045, 1049, 1129, 1130, 1142, 1227, 1698, 3118, 4151]],
    ['other', [1054, 1064, 1292, 1406, 9999]],
  ])(
    '%s is what the numbers %j of MySQL and MariaDB mean, however they are wrapped',
    (meaning, numbers) => {
      for (const number of numbers) {
        const said = byMysql(number);
        for (const error of [said, { original: said }, { driverError: { cause: said } }]) {
          expect({ number, meaning: meaningOf(error) }).toEqual({ number, meaning });
          expect(isAnswered(error)).toBe(meaning !== undefined);
        }
      }
    },
  );

  test.each<[Meaning | undefined, readonly string[]]>([
    ['duplicate key', ['23505']],
    ['deadlock', ['40P01']],
    ['not serializable', ['40001']],
    ['locked', ['55P03']],
    ['read-only', ['25006']],
    ['interrupted', ['57014']],
    ['refused', ['42501']],
    ['unavailable', ['53100', '53200', '53400', '58030']],
    [undefined, ['57P01', '57P02', '57P03', '08006', '08P01', '25P03', '28P01', '3D000', '53300']],
    ['other', ['42601', '23503', '40003']],
  ])('%s is what the states %j of PostgreSQL mean', (meaning, states) => {
    for (const state of states) {
      expect({ state, meaning: meaningOf(byPostgres(state)) }).toEqual({ state, meaning });
    }
  });

  test.each([
    [1213, true],
    [1614, true],
    [3101, true],
    // Behind the point where it is durable, or before it: nobody says.
    [1020, false],
    [1047, false],
    [1105, false],
    [1180, false],
    [1205, false],
    [1290, false],
    [1317, false],
    [3024, false],
    [3100, false],
    [1053, false],
    [2013, false],
    [1064, false],
  ])('the number %i in answer to COMMIT proves a rollback: %s', (number, proves) => {
    expect(provesRollback(byMysql(number))).toBe(proves);
    expect(provesRollback(new Error('wrapped', { cause: byMysql(number) }))).toBe(proves);
  });

  test.each([
    ['23503', true],
    ['40001', true],
    ['57014', true],
    ['40003', false],
    ['25P01', false],
    ['53100', false],
    ['58030', false],
    ['08007', false],
    ['57P01', false],
  ])('the state %s in answer to COMMIT proves a rollback: %s', (state, proves) => {
    expect(provesRollback(byPostgres(state))).toBe(proves);
  });

  test('SQLite has committed nothing when it refuses, and may have when its disk fails', () => {
    expect(provesRollback(bySqlite('SQLITE_BUSY'))).toBe(true);
    expect(provesRollback(bySqlite('SQLITE_CONSTRAINT_FOREIGNKEY'))).toBe(true);
    expect(provesRollback(bySqlite('SQLITE_IOERR_FSYNC'))).toBe(false);
    expect(provesRollback(bySqlite('SQLITE_FULL'))).toBe(false);
  });

  test('an error that no server said proves nothing', () => {
    for (const error of [
      new Error('oops'),
      undefined,
      'text',
      new EscrowError('BROKER_BUSY', 'x'),
    ]) {
      expect(provesRollback(error)).toBe(false);
    }
  });

  test('the SDKs and the broker know the same numbers, and do not disagree about them', () => {
    const agreed: Record<string, readonly Said[]> = {
      duplicate: ['duplicate key'],
      runAgain: ['locked', 'deadlock'],
      lost: ['connection lost', 'interrupted'],
      unavailable: ['unavailable', 'read-only', 'interrupted'],
      refused: ['refused'],
    };
    /** The broker repeats such a COMMIT under a token of its own; a service's can't be repeated. */
    const apart = new Set([1180]);
    /** Clients' own numbers are all lost connections to a service. */
    const isClients = (number: number) => number >= 2_000 && number < 3_000;
    const disagreed = [...SERVER_ERRORS].flatMap(([number, { class: broker }]) => {
      if (apart.has(number) || isClients(number)) return [];
      const sdk = MYSQL_ERRORS.get(number);
      const allowed = agreed[broker];
      // One statement is wrong, and to a service it makes no difference how.
      const isFine = allowed === undefined ? sdk === undefined : sdk && allowed.includes(sdk);
      return isFine ? [] : [{ number, broker, sdk }];
    });
    expect(disagreed).toEqual([]);
  });
});

describe('N13: a database that is away', () => {
  const coded = (code: string) => Object.assign(new Error(code), { code });
  const named = (name: string) => Object.assign(new Error(name), { name });
  test.each([
    ['a socket', coded('ECONNREFUSED')],
    ['a name', coded('ENOTFOUND')],
    ['mysql2', coded('PROTOCOL_CONNECTION_LOST')],
    ['mysql2', Object.assign(new Error('x'), { fatal: true })],
    ['mysql2', new Error("Can't add new command when connection is in closed state")],
    ['mysql2', new Error('Pool is closed.')],
    ['pg', new Error('Connection terminated unexpectedly')],
    ['pg', new Error('Client has encountered a connection error and is not queryable')],
    ['Knex', named('KnexTimeoutError')],
    ['Sequelize', named('SequelizeConnectionRefusedError')],
    ['Prisma', coded('P1001')],
    ['Prisma', { driverAdapterError: { cause: { kind: 'DatabaseNotReachable' } } }],
    ['SQLite', bySqlite('SQLITE_CANTOPEN')],
    ['a server', byMysql(1047)],
    ['a server that was demoted', byMysql(1290)],
    ['a server', byPostgres('57P01')],
  ])('is seen in an error of %s', (_of, error) => {
    expect(isAway(error)).toBe(true);
    const thrown = unavailable(error, 'a layer');
    expect(thrown).toMatchObject({ code: 'DATABASE_UNAVAILABLE', cause: error });
    // What was said stays readable in it.
    expect(meaningOf(thrown)).toBe(meaningOf(error));
  });

  test.each([
    ['a duplicate', byMysql(1062)],
    ['a syntax error', byPostgres('42601')],
    ['a deadlock', byMysql(1213)],
    ['a bug', new TypeError('x is not a function')],
    ['an error of ours', new EscrowError('TRANSACTION_MISUSED', 'x')],
  ])('is not seen in %s', (_what, error) => {
    expect(isAway(error)).toBe(false);
    expect(unavailable(error, 'a layer')).toBe(error);
  });

  test('without a connection every error is one, with what the driver said', () => {
    const denied = byMysql(1045);
    expect(noConnection(denied, 'mysql2')).toMatchObject({
      code: 'DATABASE_UNAVAILABLE',
      message: expect.stringContaining('error 1045'),
      cause: denied,
    });
    const nameless = Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' });
    expect(noConnection(nameless, 'pg')).toMatchObject({
      message: expect.stringContaining('ECONNREFUSED'),
    });
  });

  test('only a server that serves nobody makes its connection useless to others', () => {
    expect(servesNobody(byMysql(1047))).toBe(true);
    expect(servesNobody(byMysql(1290))).toBe(true);
    expect(servesNobody(byMysql(1317))).toBe(false);
    expect(servesNobody(byMysql(1213))).toBe(false);
  });
});
