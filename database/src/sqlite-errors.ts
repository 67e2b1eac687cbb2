import type { Said } from './meaning.js';

/** Primary codes of SQLite; an extended code has them in its lower byte. */
const BUSY = 5;
const LOCKED = 6;
const READONLY = 8;
const IOERR = 10;
const FULL = 13;
const CANTOPEN = 14;
/** Extended codes of a constraint: of the primary key, of a unique index, of the row id. */
const DUPLICATES = new Set([1555, 2067, 2579]);

/** What SQLite says, by the number of node:sqlite or the name of better-sqlite3 and sqlite3. */
export function saidBySqlite(error: object): Said | undefined {
  const message = 'message' in error ? String(error.message) : '';
  if ('errcode' in error && typeof error.errcode === 'number') {
    if (DUPLICATES.has(error.errcode)) return 'duplicate key';
    return ofPrimary(error.errcode % 256, message);
  }
  if (!('code' in error) || typeof error.code !== 'string') return undefined;
  if (!error.code.startsWith('SQLITE_')) return undefined;
  if (/^SQLITE_CONSTRAINT/.test(error.code) && /UNIQUE|PRIMARY/i.test(error.code + message)) {
    return 'duplicate key';
  }
  if (/^SQLITE_(BUSY|LOCKED)/.test(error.code)) return 'locked';
  if (/^SQLITE_READONLY/.test(error.code)) return 'read-only';
  if (/^SQLITE_(IOERR|FULL|CANTOPEN)/.test(error.code)) return 'unavailable';
  return ofMessage(message);
}

function ofPrimary(primary: number, message: string): Said {
  switch (primary) {
    case BUSY:
    case LOCKED:
      return 'locked';
    case READONLY:
      return 'read-only';
    case IOERR:
    case FULL:
    case CANTOPEN:
      return 'unavailable';
    default:
      return ofMessage(message);
  }
}

/** SQLite has one code for all that is wrong with a statement; its texts have been stable. */
function ofMessage(message: string): Said {
  if (/no such table/i.test(message)) return 'no such table';
  if (/no such savepoint|no transaction is active/i.test(message)) return 'no open transaction';
  return 'other';
}
