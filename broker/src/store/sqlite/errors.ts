import { EscrowError } from '@escrowmq/protocol';
import { DuplicateKey, RowRefused } from '../sql.js';
import { sqliteCode } from './driver.js';

/*
 * Every result code of SQLite that a statement can end with, and what it means for the store. What is
 * not here (SQLITE_ERROR, SQLITE_MISUSE, SQLITE_RANGE, …) is a mistake of ours.
 */

type Meaning =
  | { class: 'duplicate' | 'badValue' | 'tooLarge' }
  /** Ends the sentence "the SQLite store …". */
  | { class: 'unavailable'; says: string };

const unavailable = (says: string): Meaning => ({ class: 'unavailable', says });

/** By the code, or by its first two words: SQLITE_IOERR_FSYNC is a SQLITE_IOERR. */
const MEANINGS: ReadonlyMap<string, Meaning> = new Map<string, Meaning>([
  ['SQLITE_CONSTRAINT_PRIMARYKEY', { class: 'duplicate' }],
  ['SQLITE_CONSTRAINT_UNIQUE', { class: 'duplicate' }],
  ['SQLITE_CONSTRAINT_ROWID', { class: 'duplicate' }],
  ['SQLITE_CONSTRAINT', { class: 'badValue' }],
  ['SQLITE_MISMATCH', { class: 'badValue' }],
  ['SQLITE_TOOBIG', { class: 'tooLarge' }],
  ['SQLITE_BUSY', unavailable('is locked by another process')],
  ['SQLITE_LOCKED', unavailable('is locked by another process')],
  ['SQLITE_PROTOCOL', unavailable('is locked by another process')],
  ['SQLITE_READONLY', unavailable('is read-only')],
  ['SQLITE_PERM', unavailable('may not be opened')],
  ['SQLITE_AUTH', unavailable('may not be opened')],
  ['SQLITE_CANTOPEN', unavailable('can not be opened')],
  ['SQLITE_FULL', unavailable('is full: its disk has no room')],
  ['SQLITE_IOERR', unavailable('has a disk that fails')],
  ['SQLITE_NOMEM', unavailable('has no memory left')],
  ['SQLITE_NOLFS', unavailable('is larger than its file system allows')],
  ['SQLITE_INTERRUPT', unavailable('was interrupted')],
  ['SQLITE_ABORT', unavailable('was interrupted')],
  ['SQLITE_CORRUPT', unavailable('has a damaged file: stop, and restore a backup')],
  ['SQLITE_NOTADB', unavailable('has a damaged file: stop, and restore a backup')],
]);

/** The error as the store's callers know it. */
export function translate(error: unknown): unknown {
  const code = sqliteCode(error);
  if (code === undefined) return error;
  const meaning = MEANINGS.get(code) ?? MEANINGS.get(code.split('_').slice(0, 2).join('_'));
  const options = { cause: error };
  switch (meaning?.class) {
    case undefined:
      return error;
    case 'duplicate':
      return new DuplicateKey(String(error), options);
    case 'badValue':
    case 'tooLarge':
      return new RowRefused(meaning.class, `the SQLite store does not take this: ${code}`, options);
    case 'unavailable':
      return new EscrowError(
        'STORE_UNAVAILABLE',
        `the SQLite store ${meaning.says} (${code})`,
        options,
      );
  }
}
