import { EscrowError } from '@escrowmq/protocol';
import { tooOldFor } from '../domain/instances.js';
import { livingInstances } from './instance-operations.js';
import { type Database, type Dialect, type Sql, StoreRefused } from './sql.js';

/** One step of the schema. Numbered, never edited once released; a change is a new file. */
export interface Migration {
  version: number;
  name: string;
  statements: readonly string[];
  /**
   * The oldest broker that can go on with the schema afterwards. While an older one lives, the
   * migration is not run. @default any that knows the schema before it
   */
  needs?: string;
}

const SCHEMA_TABLE = `create table if not exists escrow_schema (
  version int not null primary key,
  name varchar(100) not null,
  applied_at bigint not null
)`;

/** Undefined where no broker has ever been. Reads only, so that a user without other rights may start. */
async function appliedVersions(sql: Sql, { tableNamed }: Dialect): Promise<number[] | undefined> {
  const tables = await sql.all(tableNamed, ['escrow_schema']);
  if (tables.length === 0) return undefined;
  const rows = await sql.all<{ version: number }>('select version from escrow_schema');
  return rows.map(({ version }) => version);
}

function refuseNewer(applied: readonly number[], migrations: readonly Migration[]): void {
  const known = migrations.at(-1)?.version ?? 0;
  const newest = Math.max(0, ...applied);
  if (newest <= known) return;
  throw new EscrowError(
    'SCHEMA_TOO_NEW',
    `the database has schema version ${newest}, this broker knows versions up to ${known}: ` +
      'start the newer broker that migrated it, or restore a backup from before that upgrade',
  );
}

const pendingAfter = (
  applied: readonly number[],
  migrations: readonly Migration[],
): readonly Migration[] => migrations.filter(({ version }) => !applied.includes(version));

/**
 * Brings the database to this binary's schema. Under a lock, so that instances started together
 * take turns. MySQL commits each DDL statement by itself, so statements are written to be
 * repeatable: a migration that was cut off is run again from its beginning.
 *
 * A schema that is up to date is only read: no lock, and no right but SELECT.
 *
 * Rejects with `SCHEMA_TOO_NEW` when a newer binary has been here: what it wrote may mean
 * something that this one does not know.
 */
export async function migrate(database: Database, migrations: readonly Migration[]): Promise<void> {
  const found = await appliedVersions(database, database.dialect);
  const missing = pendingAfter(found ?? [], migrations);
  if (found !== undefined) {
    refuseNewer(found, migrations);
    if (missing.length === 0) return;
  }
  try {
    await database.withMigrationLock((sql) => migrateOn(sql, database.dialect, migrations));
  } catch (error) {
    throw error instanceof StoreRefused ? rightsMissing(missing, error) : error;
  }
}

/** Retryable, so that a start waits a while for an older instance that is just being stopped. */
async function refuseBesideOlder(
  sql: Sql,
  dialect: Dialect,
  { name, needs }: { name: string; needs: string },
): Promise<void> {
  const tables = await sql.all(dialect.tableNamed, ['escrow_instance']);
  if (tables.length === 0) return;
  const problem = tooOldFor(`the migration ${name}`, needs, await livingInstances(sql, dialect));
  if (problem !== undefined) throw new EscrowError('STORE_UNAVAILABLE', problem);
}

async function migrateOn(
  sql: Sql,
  dialect: Dialect,
  migrations: readonly Migration[],
): Promise<void> {
  await sql.run(SCHEMA_TABLE);
  // Another instance may have come first.
  const applied = (await appliedVersions(sql, dialect)) ?? [];
  refuseNewer(applied, migrations);
  const pending = pendingAfter(applied, migrations);
  // Before the first statement: half of an upgrade is no place to wait in.
  for (const { name, needs } of pending) {
    if (needs !== undefined) await refuseBesideOlder(sql, dialect, { name, needs });
  }
  for (const { version, name, statements } of pending) {
    for (const statement of statements) await sql.run(statement);
    await sql.insertRows({
      table: 'escrow_schema',
      columns: ['version', 'name', 'applied_at'],
      expressions: ['?', '?', `${dialect.now} + ?`],
      rows: [[version, name, 0]],
      onDuplicate: 'fail',
    });
  }
}

/** Whoever may change the schema need not be whoever serves. */
function rightsMissing(missing: readonly Migration[], refused: StoreRefused): StoreRefused {
  const names = missing.map(({ version, name }) => `${version} (${name})`).join(', ');
  return new StoreRefused(
    `the schema lacks migrations ${names}, and the user of ESCROW_STORE may not make them: ` +
      'grant it CREATE, ALTER and INDEX on the database, or start the broker once as a user that has ' +
      `these; from then on SELECT, INSERT, UPDATE and DELETE are enough (${refused.message})`,
    { cause: refused },
  );
}
