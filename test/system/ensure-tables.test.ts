import { randomBytes } from 'node:crypto';
import { ensureConsumedTable, ensureLatestTable } from '@escrowmq/consumer';
import { fromPg } from '@escrowmq/database/pg';
import { ensureBarrierTable, ensureCompensationTable, ensureOutboxTable } from '@escrowmq/producer';
import { afterEach, expect, test } from '@jest/globals';
import { createPool } from 'mysql2/promise';
import pg from 'pg';
import { freshMysqlDatabase, freshPostgresDatabase } from '../support/servers.js';

/* U09: a service whose user may read and write rows, and nothing else. */

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

const TABLES = [
  ['escrow_barrier', ensureBarrierTable],
  ['escrow_outbox', ensureOutboxTable],
  ['escrow_compensated', ensureCompensationTable],
  ['escrow_consumed', ensureConsumedTable],
  ['escrow_latest', ensureLatestTable],
] as const;
type Input = Parameters<typeof ensureBarrierTable>[0];

const userName = () => `u${randomBytes(6).toString('hex')}`;

async function mysqlUsers(): Promise<{ owner: Input; user: Input; grant(): Promise<void> }> {
  const url = new URL(await freshMysqlDatabase());
  const owner = createPool(url.href);
  const name = userName();
  await owner.query(`create user '${name}'@'%' identified by 'sesame'`);
  await owner.query(
    `grant select, insert, update, delete on \`${url.pathname.slice(1)}\`.* to '${name}'@'%'`,
  );
  url.username = name;
  url.password = 'sesame';
  const user = createPool(url.href);
  clean.push(async () => {
    await user.end();
    await owner.query(`drop user '${name}'@'%'`);
    await owner.end();
  });
  return { owner, user, grant: async () => undefined };
}

async function postgresUsers(): Promise<{ owner: Input; user: Input; grant(): Promise<void> }> {
  const url = new URL(await freshPostgresDatabase());
  const owner = new pg.Pool({ connectionString: url.href });
  const name = userName();
  await owner.query(`create role ${name} login password 'sesame'`);
  await owner.query('revoke create on schema public from public');
  url.username = name;
  url.password = 'sesame';
  const user = new pg.Pool({ connectionString: url.href });
  clean.push(async () => {
    await user.end();
    await owner.query(`drop owned by ${name}`);
    await owner.query(`drop role ${name}`);
    await owner.end();
  });
  const rights = `grant select, insert, update, delete on all tables in schema public to ${name}`;
  return {
    owner: fromPg(owner),
    user: fromPg(user),
    grant: async () => void (await owner.query(rights)),
  };
}

test.each([
  ['MySQL', mysqlUsers],
  ['PostgreSQL', postgresUsers],
])(
  'U09: on %s a table that is there needs no right to create one, a missing one is told with its SQL',
  async (_name, users) => {
    const { owner, user, grant } = await users();
    for (const [name, ensure] of TABLES) {
      await expect(ensure(user)).rejects.toMatchObject({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringMatching(
          new RegExp(`may not create the table ${name}[\\s\\S]*create table if not exists ${name}`),
        ),
      });
      await ensure(owner);
      await grant();
      await ensure(user);
    }
  },
);
