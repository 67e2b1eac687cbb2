import { EscrowError } from '@escrowmq/protocol';
import { within } from '../deadline.js';
import { noConnection } from '../unavailable.js';
import type { Mysql2Connection, Mysql2Pool } from './mysql2-shape.js';

/** A connection from a caller's pool, given back exactly once: by `release` or by `destroy`. */
export interface Lease<C extends Mysql2Connection> {
  readonly connection: C;
  /** Only for a connection that is known to be clean: no open transaction, no changed setting. */
  release(): void;
  /** Closes it; the server rolls back what was open. */
  destroy(): void;
}

/**
 * A connection within `limitMs`. One that the pool hands over later goes straight back: a wait
 * that were only given up would keep the connection for ever.
 *
 * @throws {EscrowError} DATABASE_UNAVAILABLE when the time is over, or with the driver's error as the
 *   cause: nobody listens, it admits nobody, the pool was ended
 */
export async function acquire<C extends Mysql2Connection>(
  pool: Mysql2Pool<C>,
  limitMs: number,
): Promise<Lease<C>> {
  // A pool that was ended may say so at once.
  const connected = (async () => pool.getConnection())().catch((error: unknown) => {
    throw noConnection(error, 'mysql2');
  });
  const connection = await within(connected, limitMs, {
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
