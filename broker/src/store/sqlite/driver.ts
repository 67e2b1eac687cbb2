import { createRequire } from 'node:module';
import { EscrowError } from '@escrowmq/protocol';

/** What the store uses of a SQLite library; better-sqlite3 and `node:sqlite` both have it. */
export interface SqliteStatement {
  all(...values: unknown[]): unknown[];
  run(...values: unknown[]): { changes: number | bigint };
}
export interface SqliteConnection {
  prepare(sql: string): SqliteStatement;
  exec(sql: string): void;
  close(): void;
}

const require = createRequire(import.meta.url);

/**
 * `node:sqlite` where Node has it without a flag (from 22.13): nothing to compile. Before that
 * better-sqlite3, an optional dependency, because its installation needs a compiler or a download.
 */
export function openSqlite(path: string): SqliteConnection {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 13)) return openBuiltIn(path);
  try {
    const Database = require('better-sqlite3') as new (path: string) => SqliteConnection;
    return new Database(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'MODULE_NOT_FOUND' && code !== 'ERR_DLOPEN_FAILED') throw error;
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `the SQLite driver does not load on Node ${process.versions.node}: run "npm rebuild better-sqlite3" ` +
        '(needs a C++ compiler, and Node headers in npm_config_nodedir when offline), use Node 22.13 ' +
        'or newer, which brings SQLite along, or set ESCROW_STORE=mysql://…',
      { cause: error },
    );
  }
}

/** Node 22 and 23 warn that `node:sqlite` is experimental; our tests run on it, so we do not. */
function openBuiltIn(path: string): SqliteConnection {
  const emitWarning = process.emitWarning;
  process.emitWarning = (() => undefined) as typeof process.emitWarning;
  try {
    const { DatabaseSync } = require('node:sqlite') as {
      DatabaseSync: new (path: string) => SqliteConnection;
    };
    return new DatabaseSync(path);
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** SQLite's own result code, whichever library reports it. */
export function sqliteCode(error: unknown): string | undefined {
  // By its shape: errors of built-in modules may be of another realm, unknown to `instanceof`.
  if (typeof error !== 'object' || error === null) return undefined;
  if ('errcode' in error && typeof error.errcode === 'number') {
    return NAMES[error.errcode] ?? NAMES[error.errcode & 0xff];
  }
  if ('code' in error && typeof error.code === 'string' && error.code.startsWith('SQLITE_')) {
    return error.code;
  }
  return undefined;
}

/** The codes that the store tells apart; the low byte is the primary code of an extended one. */
const NAMES: Record<number, string> = {
  3: 'SQLITE_PERM',
  4: 'SQLITE_ABORT',
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  7: 'SQLITE_NOMEM',
  8: 'SQLITE_READONLY',
  9: 'SQLITE_INTERRUPT',
  10: 'SQLITE_IOERR',
  11: 'SQLITE_CORRUPT',
  13: 'SQLITE_FULL',
  14: 'SQLITE_CANTOPEN',
  15: 'SQLITE_PROTOCOL',
  18: 'SQLITE_TOOBIG',
  19: 'SQLITE_CONSTRAINT',
  20: 'SQLITE_MISMATCH',
  22: 'SQLITE_NOLFS',
  23: 'SQLITE_AUTH',
  26: 'SQLITE_NOTADB',
  1555: 'SQLITE_CONSTRAINT_PRIMARYKEY',
  2067: 'SQLITE_CONSTRAINT_UNIQUE',
  2579: 'SQLITE_CONSTRAINT_ROWID',
};
