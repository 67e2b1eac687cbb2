import type { EngineName } from './engine.js';

/** A statement by which a callback ends the transaction that was opened for it. */
interface Ending {
  by: string;
  sql: string;
  /** What becomes of it; absent where the engine does not let it end anything. */
  outcome: Partial<Record<EngineName, 'commit' | 'rollback'>>;
}

export const ENDINGS: Ending[] = [
  {
    by: 'DDL',
    sql: 'create table if not exists extra (id int)',
    outcome: { MariaDB: 'commit' },
  },
  {
    by: 'a COMMIT of its own',
    sql: 'commit',
    outcome: { MariaDB: 'commit', PostgreSQL: 'commit', SQLite: 'commit' },
  },
  {
    by: 'a ROLLBACK of its own',
    sql: 'rollback',
    outcome: { MariaDB: 'rollback', PostgreSQL: 'rollback', SQLite: 'rollback' },
  },
  { by: 'a second BEGIN', sql: 'begin', outcome: { MariaDB: 'commit' } },
];
