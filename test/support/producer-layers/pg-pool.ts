import pg from 'pg';

/**
 * A pool whose connections may be cut: pg reports that beside the statement that fails, and a report
 * which nobody hears ends the process.
 */
export function pgPool(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  pool.on('error', () => undefined);
  pool.on('connect', (client) => client.on('error', () => undefined));
  return pool;
}
