import { startPrivatePostgres } from '@escrowmq/local-servers';
import { expect, test } from '@jest/globals';
import pg from 'pg';
import { meaningOf } from '../../database/src/server-errors.js';

test('a server that stops, and one that crashes, are lost connections', async () => {
  const server = await startPrivatePostgres();
  try {
    for (const end of [() => server.stop(), () => server.kill()]) {
      const client = new pg.Client({ connectionString: server.url });
      client.on('error', () => {});
      await client.connect();
      const [error] = await Promise.all([
        client.query('select pg_sleep(60)').catch((thrown: unknown) => thrown),
        end(),
      ]);
      expect(error).toHaveProperty('message');
      expect(meaningOf(error)).toBeUndefined();
      await server.restart();
    }
  } finally {
    await server.remove();
  }
});
