import type { Database } from '../../broker/src/store/sql.js';
import { deferred } from './ready.js';

export interface PausedDatabase {
  paused: Database;
  /** Resolves when a transaction stands still. */
  reached: Promise<void>;
  go(): void;
}

/** A database whose transactions stand still right after a statement that matches, until told. */
export function pausedAfter(database: Database, statement: RegExp): PausedDatabase {
  const reached = deferred();
  const mayGo = deferred();
  async function pauseAfter<T>(text: string, result: Promise<T>): Promise<T> {
    const value = await result;
    if (statement.test(text)) {
      reached.resolve();
      await mayGo.promise;
    }
    return value;
  }
  const paused: Database = {
    ...database,
    transaction: (work) =>
      database.transaction((sql) =>
        work({
          ...sql,
          all: (text, values) => pauseAfter(text, sql.all(text, values)),
          run: (text, values) => pauseAfter(text, sql.run(text, values)),
        }),
      ),
  };
  return { paused, reached: reached.promise, go: mayGo.resolve };
}
