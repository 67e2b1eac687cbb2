import { fromDrizzle } from '@escrowmq/database/drizzle';
import { fromKnex } from '@escrowmq/database/knex';
import { fromKysely } from '@escrowmq/database/kysely';
import { fromPrisma } from '@escrowmq/database/prisma';
import { fromTypeOrm } from '@escrowmq/database/typeorm';
import { expect, test } from '@jest/globals';
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import knexOf from 'knex';
import { DummyDriver, Kysely, MssqlAdapter, MssqlQueryCompiler } from 'kysely';
import { DataSource } from 'typeorm';
import { openSqlite } from '../support/producer-layers/better-sqlite3.js';

/* What adapters say before anything is sent; none of these connects. */

function mssqlKysely(): Kysely<object> {
  return new Kysely<object>({
    dialect: {
      createAdapter: () => new MssqlAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: () => {
        throw new Error('nobody asks for the tables');
      },
      createQueryCompiler: () => new MssqlQueryCompiler(),
    },
  });
}

/** A transaction of Prisma whose statements the server answers with `error`. */
const refusingPrisma = (provider: string, error: Error) => ({
  _activeProvider: provider,
  $queryRawUnsafe: () => Promise.reject(error),
  $executeRawUnsafe: () => Promise.reject(error),
});

test.each([
  ['Knex', () => fromKnex(knexOf({ client: 'redshift' }))],
  ['Knex on CockroachDB', () => fromKnex(knexOf({ client: 'cockroachdb' }))],
  ['Kysely', () => fromKysely(mssqlKysely())],
  ['Prisma', () => fromPrisma(refusingPrisma('sqlserver', new Error('never asked')))],
  ['TypeORM', () => fromTypeOrm(new DataSource({ type: 'cockroachdb' } as never))],
])('%s on a database that the barrier does not work on is refused by name', (_, make) => {
  expect(make).toThrow(
    expect.objectContaining({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringMatching(
        /(redshift|Mssql|cockroachdb|sqlserver).*the barrier works on/,
      ),
    }),
  );
});

test('TypeORM on SQLite is refused, because a check would share the connection', () => {
  const dataSource = new DataSource({ type: 'better-sqlite3', database: ':memory:' });
  expect(() => fromTypeOrm(dataSource)).toThrow(/use fromSqlite/);
});

test('Drizzle on a driver that answers at once is refused, because a callback takes time', () => {
  const db = drizzle({ client: openSqlite(':memory:') as never });
  expect(() => fromDrizzle(db as never, sql)).toThrow(/asynchronous driver/);
});

test('the same database of a layer is the same to the SDK, which learns about it once', () => {
  const knex = knexOf({ client: 'mysql2' });
  expect(fromKnex(knex)).toBe(fromKnex(knex));
});

test('a MySQL that takes no savepoint from Prisma is explained', async () => {
  const said = new Error(
    'Raw query failed. Code: `1295`. Message: `This command is not supported in the prepared statement protocol yet`',
  );
  const { executor } = fromPrisma(refusingPrisma('mysql', said));
  await expect(executor.execute('savepoint escrow_barrier')).rejects.toMatchObject({
    code: 'INVALID_CONFIGURATION',
    message: expect.stringContaining('useTextProtocol'),
    cause: said,
  });
});
