import { ensureLatestTable, latest } from '@escrowmq/consumer';
import { fromPg } from '@escrowmq/database/pg';
import { expect, test } from '@jest/globals';
import pg from 'pg';
import { newMessage } from '../support/consumer-layers/bench.js';
import { hostileMysql2, hostilePg, hostileSqlite } from '../support/hostile/drivers.js';
import { describeHostile } from '../support/hostile/suite.js';
import { freshPostgresDatabase } from '../support/servers.js';

for (const layer of hostileMysql2) describeHostile(layer);
for (const layer of hostilePg) describeHostile(layer);
for (const layer of hostileSqlite) describeHostile(layer);

test('U04: what the encoding of a database can not hold is refused in the call, and never another character', async () => {
  const url = new URL(await freshPostgresDatabase());
  const admin = new pg.Client(url.href);
  await admin.connect();
  const name = `${url.pathname.slice(1)}_latin1`;
  await admin.query(
    `create database ${name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`,
  );
  url.pathname = name;
  const pool = new pg.Pool({ connectionString: url.href });
  try {
    const database = fromPg(pool);
    await ensureLatestTable(database);
    const call = (key: string) =>
      latest(database, newMessage(), { key, at: 1 }, async () => undefined);
    expect(await call('order:é')).toBe('applied');
    await expect(call('order:😀')).rejects.toThrow(/LATIN1/);
    const { rows } = await pool.query('select object_key from escrow_latest');
    expect(rows).toEqual([{ object_key: 'order:é' }]);
  } finally {
    await pool.end();
    await admin.query(`drop database ${name}`);
    await admin.end();
  }
});
