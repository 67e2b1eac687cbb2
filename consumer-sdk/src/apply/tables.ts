import type { Dialect } from '@escrowmq/database';

/** For what is done to a table beside the messages: nobody's handler waits for it. */
export const TABLE_LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };

/** UTC milliseconds of the database. */
export const NOW_MS: Record<Dialect, string> = {
  mysql: 'cast(unix_timestamp(now(3)) * 1000 as signed)',
  postgres: 'cast(extract(epoch from clock_timestamp()) * 1000 as bigint)',
  sqlite: "cast((julianday('now') - 2440587.5) * 86400000 as integer)",
};

/** A whole number, as it is selected: on PostgreSQL as text, which its binary format leaves alone. */
export const NUMBER_OUT: Record<Dialect, (number: string) => string> = {
  mysql: (number) => number,
  postgres: (number) => `cast(${number} as text)`,
  sqlite: (number) => number,
};

/** A text as a value; PostgreSQL is told its type, for layers that send every value as text. */
export const TEXT: Record<Dialect, string> = {
  mysql: '?',
  postgres: 'cast(? as text)',
  sqlite: '?',
};

/** A whole number, passed as text: some layers send a number as one of 32 bits. */
export const INTEGER: Record<Dialect, string> = {
  mysql: 'cast(? as signed)',
  postgres: 'cast(cast(? as text) as bigint)',
  sqlite: 'cast(? as integer)',
};

export const times = (count: number, part: string): string => Array(count).fill(part).join(', ');
