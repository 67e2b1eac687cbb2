import { statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { EscrowError, type StateName } from '@escrowmq/protocol';
import {
  type Database,
  idBytes,
  marks,
  type RowsToInsert,
  type Sql,
  type SqlValue,
} from '../sql.js';
import { countsByState } from './counts.js';
import { openSqlite, type SqliteConnection, type SqliteStatement, sqliteCode } from './driver.js';
import { translate } from './errors.js';

/**
 * SQLite in this process: one connection, one writer, nothing to install. The file is locked for
 * as long as it is open, so a second broker on it fails at its start and not at its first write.
 *
 * The library is synchronous. Statements of a transaction are apart by microtasks only, and a
 * queue keeps everything else out until it has ended.
 */
const PRAGMAS = [
  'pragma busy_timeout = 1000',
  'pragma locking_mode = exclusive',
  'pragma journal_mode = wal',
  // Reopening a WAL file falls back to NORMAL, which may lose the last commits with the power.
  'pragma synchronous = full',
  'pragma foreign_keys = on',
  'pragma cache_size = -65536',
  // Takes the lock now.
  'begin immediate',
  'commit',
];

/** Distinct SQL texts kept prepared; about thirty texts, those with a list in ten lengths. */
const STATEMENTS_KEPT_MAX = 500;

/** It takes 30 ms at most, in which nothing else runs. */
const ROWS_SORTED_MAX = 20_000;

/** See the first migration. What is forwarded has none. */
const STATE_INDEXES: Record<StateName, string> = {
  prepared: 'indexed by escrow_transaction_prepared',
  committed: 'indexed by escrow_transaction_committed',
  parked: 'indexed by escrow_transaction_parked',
  rolledBack: 'indexed by escrow_transaction_rolled_back',
  forwarded: '',
};

/**
 * Filled up to a power of two by its last id, so that lists of 1 to 500 make ten texts and not five
 * hundred. A JSON array to select from would make one, at a tenth more for each row.
 */
function inIds(ids: readonly string[]): { list: string; values: readonly Buffer[] } {
  const values = ids.map(idBytes);
  const length = 2 ** Math.ceil(Math.log2(ids.length));
  const last = values.at(-1);
  while (last !== undefined && values.length < length) values.push(last);
  return { list: `in (${marks(length)})`, values };
}

function whyNotOpened(error: unknown): string {
  const code = sqliteCode(error);
  if (code?.startsWith('SQLITE_BUSY')) {
    return 'another process has it open; a SQLite store serves one broker, several brokers share ESCROW_STORE=mysql://…';
  }
  if (code === 'SQLITE_NOTADB') return 'the file is not a SQLite database';
  return `${code ?? String(error)}; the folder must exist and be writable`;
}

function open(path: string): SqliteConnection {
  let connection: SqliteConnection | undefined;
  try {
    connection = openSqlite(path);
    for (const pragma of PRAGMAS) connection.exec(pragma);
    return connection;
  } catch (error) {
    connection?.close();
    // The driver itself is missing, and said so.
    if (error instanceof EscrowError) throw error;
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `can not open the SQLite store ${path}: ${whyNotOpened(error)}`,
      { cause: error },
    );
  }
}

/** What Linux calls a file system in memory: /dev/shm, often /run and /tmp. */
const TMPFS = 0x01021994;

function caveatsOf(path: string): string[] {
  if (path.includes(':memory:')) {
    return [
      'the store is in memory: NOTHING SURVIVES A RESTART, what was acknowledged is lost with the process; ' +
        'set ESCROW_STORE=sqlite:<path> or mysql://…',
    ];
  }
  if (statfsSync(dirname(resolve(path))).type !== TMPFS) return [];
  return [
    `the store ${path} is on a file system in memory (tmpfs): NOTHING SURVIVES A RESTART OF THE MACHINE; ` +
      'set ESCROW_STORE to a path on a disk',
  ];
}

export function openSqliteDatabase(path: string): Database {
  const connection = open(path);
  const statements = new Map<string, SqliteStatement>();

  function prepared(text: string): SqliteStatement {
    const known = statements.get(text);
    if (known !== undefined) return known;
    if (statements.size >= STATEMENTS_KEPT_MAX) statements.clear();
    const statement = connection.prepare(text);
    statements.set(text, statement);
    return statement;
  }

  function insertAll({ table, columns, expressions, rows, onDuplicate }: RowsToInsert): void {
    const values = expressions?.join(', ') ?? marks(columns.length);
    const statement = prepared(
      `insert ${onDuplicate === 'ignore' ? 'or ignore' : ''} into ${table}
       (${columns.join(', ')}) values (${values})`,
    );
    const [only, ...more] = rows;
    if (only !== undefined && more.length === 0) {
      // One statement is all or nothing by itself.
      statement.run(...only);
      return;
    }
    connection.exec('savepoint rows');
    try {
      for (const row of rows) statement.run(...row);
      connection.exec('release rows');
    } catch (error) {
      connection.exec('rollback to rows');
      connection.exec('release rows');
      throw error;
    }
  }

  /** One statement at a time on the connection itself; callers hold the queue. */
  const direct: Sql = {
    async all<Row>(text: string, values: readonly SqlValue[] = []) {
      try {
        return prepared(text).all(...values) as Row[];
      } catch (error) {
        throw translate(error);
      }
    },
    async run(text, values = []) {
      try {
        return Number(prepared(text).run(...values).changes);
      } catch (error) {
        throw translate(error);
      }
    },
    async insertRows(insert) {
      if (insert.rows.length === 0) return;
      try {
        insertAll(insert);
      } catch (error) {
        throw translate(error);
      }
    },
  };

  let tail: Promise<unknown> = Promise.resolve();
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = tail.then(work);
    tail = turn.catch(() => undefined);
    return turn;
  }

  async function inTransaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    await direct.run('begin immediate');
    try {
      const result = await work(direct);
      await direct.run('commit');
      return result;
    } catch (error) {
      // A full disk may have ended the transaction already.
      await direct.run('rollback').catch(() => undefined);
      throw error;
    }
  }

  return {
    dialect: {
      now: "cast(unixepoch('subsec') * 1000 as integer)",
      skipLocked: '',
      forUpdate: '',
      // The index that makes `id` unique.
      byId: 'indexed by sqlite_autoindex_escrow_transaction_1',
      // The table of keys has no other index.
      byKey: '',
      byState: (state) => STATE_INDEXES[state],
      rowsSortedMax: ROWS_SORTED_MAX,
      inIds,
      countsByState,
      tableNamed: "select 1 from sqlite_master where type = 'table' and name = ?",
    },
    // Its limit for a value is a billion bytes, and a row is a statement of its own.
    insertBytesMax: () => Number.POSITIVE_INFINITY,
    caveats: async () => caveatsOf(path),
    all: (text, values) => inTurn(() => direct.all(text, values)),
    run: (text, values) => inTurn(() => direct.run(text, values)),
    insertRows: (insert) => inTurn(() => direct.insertRows(insert)),
    transaction: (work) => inTurn(() => inTransaction(work)),
    // The file is ours alone while it is open. All of it or nothing: SQLite has no ALTER that could
    // be repeated after a migration was cut off.
    withMigrationLock: (work) => inTurn(() => inTransaction(work)),
    close: () => inTurn(async () => connection.close()),
  };
}
