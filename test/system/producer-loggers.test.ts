import { createProducer, ensureOutboxTable } from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { createPool, type Pool } from 'mysql2/promise';
import { freshMysqlDatabase } from '../support/servers.js';
import { until } from '../support/until.js';

let pool: Pool;

beforeAll(async () => {
  pool = createPool({ uri: await freshMysqlDatabase(), connectionLimit: 2 });
  await ensureOutboxTable(pool);
});

afterAll(() => pool.end());
afterEach(() => {
  jest.restoreAllMocks();
});

const boom = () => {
  throw new Error('the logger is broken');
};

describe('U08: a logger that fails takes nothing from a transaction that has committed', () => {
  test.each<[string, object]>([
    ['throws', { warn: boom, error: boom }],
    ['rejects', { warn: async () => boom(), error: async () => boom() }],
    ['lacks its functions', {}],
  ])('one that %s, in outbox mode, with a broker that is away', async (_, logger) => {
    const lines: string[] = [];
    for (const level of ['warn', 'error'] as const) {
      jest.spyOn(console, level).mockImplementation((text) => void lines.push(String(text)));
    }
    const producer = createProducer({
      brokers: ['http://127.0.0.1:1'],
      producerGroup: 'accounts',
      outbox: true,
      logger: logger as never,
    });
    const sent = producer.transaction(pool, { topic: 'user', data: 1 }, (tx) => tx.query('do 0'));
    await expect(sent).resolves.toMatchObject({ outcome: 'committed', acknowledged: false });
    // Two seconds of tries later the sender tells what the logger can not take.
    await until('it is said on stderr', () => lines.some((line) => /broker not told/.test(line)));
    expect(lines.filter((line) => line.includes('the logger failed'))).toHaveLength(1);
    await producer.close();
  });
});
