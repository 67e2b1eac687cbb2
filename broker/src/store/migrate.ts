import { EscrowError } from '@escrowmq/protocol';
import type { Database, Sql } from './sql.js';

/** One step of the schema. Numbered, never edited once released; a change is a new file. */
export interface Migration {
  version: number;
  name: string;
  statements: readonly string[];
}

const SCHEMA_TABLE = `create table if not exists escrow_schema (
  version int not null primary key,
  name varchar(100) not null,
  applied_at bigint not null
)`;

async function appliedVersions(sql: Sql): Promise<number[]> {
  await sql.run(SCHEMA_TABLE);
  const rows = await sql.all<{ version: number }>('select version from escrow_schema');
  return rows.map(({ version }) => version);
}

/**
 * Brings the database to this binary's schema. Under a lock, so that instances started together
 * take turns. MySQL commits each DDL statement by itself, so statements are written to be
 * repeatable: a migration that was cut off is run again from its beginning.
 *
 * Rejects with `SCHEMA_TOO_NEW` when a newer binary has been here: what it wrote may mean
 * something that this one does not know.
 */
export async function migrate(database: Database, migrations: readonly Migration[]): Promise<void> {
  const known = migrations.at(-1)?.version ?? 0;
  await database.withMigrationLock(async (sql) => {
    const applied = await appliedVersions(sql);
    const newest = Math.max(0, ...applied);
    if (newest > known) {
      throw new EscrowError(
        'SCHEMA_TOO_NEW',
        `the database has schema version ${newest}, this broker knows versions up to ${known}: ` +
          'start the newer broker that migrated it, or restore a backup from before that upgrade',
      );
    }
    for (const { version, name, statements } of migrations) {
      if (applied.includes(version)) continue;
      for (const statement of statements) await sql.run(statement);
      await sql.insertRows({
        table: 'escrow_schema',
        columns: ['version', 'name', 'applied_at'],
        expressions: ['?', '?', `${database.dialect.now} + ?`],
        rows: [[version, name, 0]],
        onDuplicate: 'fail',
      });
    }
  });
}
