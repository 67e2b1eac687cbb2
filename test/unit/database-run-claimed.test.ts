import { EscrowError } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import type { LocalDatabase } from '../../database/src/database.js';
import { executorOn } from '../../database/src/executor.js';
import { runClaimed } from '../../database/src/run-claimed.js';
import { savepointGuard } from '../../database/src/transaction-guard.js';

/** Rolling back to the savepoint gets no answer; another connection works. */
function halfDead(): LocalDatabase<object> {
  const executor = executorOn({
    layer: 'half dead',
    hooks: 'nothing',
    send: (sql) => (sql.startsWith('rollback to') ? new Promise(() => {}) : Promise.resolve([])),
  });
  return {
    kind: 'database',
    dialect: 'mysql',
    layer: 'half dead',
    transaction: (work) => work({ tx: {}, executor, guard: savepointGuard(executor) }),
    session: (work) => work(executor),
  };
}

test('work that fails on a connection that never answers again ends, and the claim tells how', async () => {
  const cause = new Error('the work fails');
  const claimed = runClaimed({
    database: halfDead(),
    what: 'message 7',
    signal: undefined,
    limits: { connectionTimeoutMs: 50, commitTimeoutMs: 50 },
    claim: async () => undefined,
    isClaimed: async () => true,
    missingTable: () => new EscrowError('INVALID_CONFIGURATION', 'no table'),
    work: () => Promise.reject(cause),
    ended: (claim, why) => new Error(`ended: ${claim}`, { cause: why }),
  });
  await expect(claimed).rejects.toMatchObject({ message: 'ended: commit', cause });
});
