import { createRequire } from 'node:module';
import type { SqliteDatabase } from 'kysely';

/** As much of better-sqlite3, which has no types of its own, as the tests use. */
export interface BetterSqlite3 extends SqliteDatabase {
  prepare(sql: string): ReturnType<SqliteDatabase['prepare']> & { all(): unknown[] };
}

const Database = createRequire(import.meta.url)('better-sqlite3') as new (
  path: string,
  options?: { timeout: number },
) => BetterSqlite3;

/** @param lockWaitMs how long it stands still for somebody else's lock @default 5000, its own */
export function openSqlite(path: string, lockWaitMs = 5_000): BetterSqlite3 {
  return new Database(path, { timeout: lockWaitMs });
}
