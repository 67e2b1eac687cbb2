import { createRequire } from 'node:module';

/** What became of the transactions, as the broker's own store has it. */
export interface BrokerFigures {
  committed: number;
  rolledBack: number;
  forwarded: number;
  /** Of these, decided by a check. */
  committedByCheck: number;
  rolledBackByCheck: number;
  /** Transactions that nobody has decided, or that could not be forwarded. */
  unfinished: number;
}

interface Sqlite {
  prepare(sql: string): { all(): unknown[] };
  close(): void;
}

const require = createRequire(import.meta.url);

/** The driver that the broker uses as well: built in from Node 22.13, else better-sqlite3. */
function openSqlite(path: string): Sqlite {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 13)) {
    const { DatabaseSync } = require('node:sqlite') as { DatabaseSync: new (p: string) => Sqlite };
    return new DatabaseSync(path);
  }
  const Database = require('better-sqlite3') as new (p: string) => Sqlite;
  return new Database(path);
}

const COUNT_TRANSACTIONS = `select
  count(case when decision = 'commit' then 1 end) as committed,
  count(case when decision = 'rollback' then 1 end) as rolledBack,
  count(case when state = 'forwarded' then 1 end) as forwarded,
  count(case when decision = 'commit' and decided_by like 'check %' then 1 end)
    as committedByCheck,
  count(case when decision = 'rollback' and decided_by like 'check %' then 1 end)
    as rolledBackByCheck,
  count(case when state not in ('forwarded', 'rolledBack') then 1 end) as unfinished
from escrow_transaction`;

/** @param path the SQLite file, when the broker has stopped */
export function readStore(path: string): BrokerFigures {
  const store = openSqlite(path);
  try {
    return store.prepare(COUNT_TRANSACTIONS).all()[0] as BrokerFigures;
  } finally {
    store.close();
  }
}
