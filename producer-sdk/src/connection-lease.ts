import assert from 'node:assert/strict';
import { EscrowError } from '@escrowmq/protocol';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { within } from './deadline.js';

/** A connection from a caller's pool, given back exactly once: by `release` or by `destroy`. */
export interface Lease {
  readonly connection: PoolConnection;
  /** Only for a connection that is known to be clean: no open transaction, no changed setting. */
  release(): void;
  /** Closes it; the server rolls back what was open. */
  destroy(): void;
}

/**
 * A connection within `limitMs`. One that the pool hands over later goes straight back: a wait
 * that were only given up would keep the connection for ever.
 *
 * @throws {EscrowError} DATABASE_UNAVAILABLE when the time is over, or the driver's error
 */
export async function acquire(pool: Pool, limitMs: number): Promise<Lease> {
  assert(!('promise' in pool), "needs a pool of 'mysql2/promise'; of another, pool.promise()");
  const connection = await within(pool.getConnection(), limitMs, {
    error: () =>
      new EscrowError(
        'DATABASE_UNAVAILABLE',
        `the pool gave no database connection within ${Math.round(limitMs)} ms; nothing was written`,
      ),
    giveBack: (late) => late.release(),
  });
  let isGivenBack = false;
  const once = (giveBack: () => void) => () => {
    if (isGivenBack) return;
    isGivenBack = true;
    giveBack();
  };
  return {
    connection,
    release: once(() => connection.release()),
    destroy: once(() => connection.destroy()),
  };
}

/** Numbers of server errors, the same on MySQL and MariaDB. */
export const SERVER_ERROR = {
  duplicateKey: 1062,
  noSuchTable: 1146,
  lockWaitTimeout: 1205,
  deadlock: 1213,
  noSuchSavepoint: 1305,
} as const;

/** The number of an error that the server sent; `undefined` for a lost connection and the rest. */
export function serverErrorOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errno' in error) || !('sqlState' in error)) return undefined;
  return typeof error.errno === 'number' ? error.errno : undefined;
}
