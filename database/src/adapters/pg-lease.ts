import { EscrowError } from '@escrowmq/protocol';
import type { Pool, PoolClient } from 'pg';
import { within } from '../deadline.js';
import { noConnection } from '../unavailable.js';

/** A client from a caller's pool, given back exactly once: by `release` or by `destroy`. */
export interface Lease {
  readonly client: PoolClient;
  /** Only for a client that is known to be clean: no open transaction, no changed setting. */
  release(): void;
  /** Closes it; the server rolls back what was open. */
  destroy(): void;
}

/**
 * A client within `limitMs`. One that the pool hands over later goes straight back: a wait that
 * were only given up would keep the client for ever.
 *
 * @throws {EscrowError} DATABASE_UNAVAILABLE when the time is over, or with the driver's error as the
 *   cause: nobody listens, it admits nobody, the pool was ended
 */
export async function acquire(pool: Pool, limitMs: number): Promise<Lease> {
  // A pool that was ended may say so at once.
  const connected = (async () => pool.connect())().catch((error: unknown) => {
    throw noConnection(error, 'pg');
  });
  const client = await within(connected, limitMs, {
    error: () =>
      new EscrowError(
        'DATABASE_UNAVAILABLE',
        `the pool gave no database connection within ${Math.round(limitMs)} ms; nothing was written`,
      ),
    giveBack: (late) => late.release(),
  });
  // A connection that is lost between two statements is an `error` event, and one that nobody
  // listens to ends the process. The next statement says the same to whoever sent it.
  const onError = () => {};
  client.on('error', onError);
  let isGivenBack = false;
  return {
    client,
    release() {
      if (isGivenBack) return;
      isGivenBack = true;
      client.removeListener('error', onError);
      client.release();
    },
    destroy() {
      if (isGivenBack) return;
      isGivenBack = true;
      // Still listened to: it may fail once more while it is being closed.
      client.release(true);
    },
  };
}
