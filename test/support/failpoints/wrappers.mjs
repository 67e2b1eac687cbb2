/*
 * What the module hooks put around the ports. Each takes the export of the product and gives one
 * that does the same, with a point before and after each durable step.
 */
import { failing, reach, step } from './failpoint.mjs';

/**
 * Leases of 30 and 45 s are for machines that stand still; whoever waits for them in a test only
 * waits. Shorter ones also let another instance act while the owner of a lease is stopped.
 */
const LEASE_MS = 1_500;

const shortLease = (claim) => ({ ...claim, leaseMs: Math.min(claim.leaseMs, LEASE_MS) });

/** Nothing that was due is no durable step. */
const claims = (name) => (operation) => async (claim) => {
  reach(`${name}:before`);
  const claimed = await operation(shortLease(claim));
  if (claimed.due.length > 0) reach(`${name}:after`);
  return claimed;
};
const leases = (name) => (operation) => (batch, leaseMs) =>
  step(name, () =>
    operation(batch, leaseMs === undefined ? undefined : Math.min(leaseMs, LEASE_MS)),
  );

export const opensStore =
  (openStore) =>
  async (...args) =>
    failing(await openStore(...args), {
      insert: 'store.insert',
      decide: leases('store.decide'),
      claimDueChecks: claims('store.claimDueChecks'),
      saveChecks: 'store.saveChecks',
      claimDueForwards: claims('store.claimDueForwards'),
      readCommitted: 'store.readCommitted',
      saveForwards: leases('store.saveForwards'),
      saveReceipts: 'store.saveReceipts',
    });

export const opensRabbit =
  (openRabbit) =>
  (...args) =>
    failing(openRabbit(...args), { publish: 'publisher.publish' });

export const createsAsker =
  (createAsker) =>
  (...args) =>
    failing(createAsker(...args), { ask: 'asker.ask' });

/** The producer's calls, by the operations in them. */
export const exchanges = (exchange) => async (pool, request, limitMs) => {
  const calls = ['prepare', 'commit', 'rollback'].filter((op) =>
    String(request.body).includes(`"op":"${op}"`),
  );
  for (const op of calls) reach(`call.${op}:before`);
  const answer = await exchange(pool, request, limitMs);
  for (const op of calls) reach(`call.${op}:after`);
  return answer;
};

/** Long enough for the frame to leave the process, which nobody is told of. */
const FRAME_SENT_MS = 100;

export const acknowledges = (Outstanding) =>
  class extends Outstanding {
    constructor(channel, watched, hooks) {
      const ack = (operation) => (original, multiple) => {
        reach('acknowledge:before');
        operation(original, multiple);
        setTimeout(() => reach('acknowledge:after'), FRAME_SENT_MS);
      };
      super(failing(channel, { ack }), watched, hooks);
    }
  };

/** A service's own database: the row that binds, the work and COMMIT. */
export const failingDatabase = (database) => ({
  ...database,
  session: (work, limits) => database.session(work, limits),
  async transaction(work, limits) {
    const result = await database.transaction(async (open) => {
      let isFirst = true;
      const execute = async (sql, values) => {
        if (!isFirst) return open.executor.execute(sql, values);
        isFirst = false;
        return step('bind', () => open.executor.execute(sql, values));
      };
      const value = await work({ ...open, executor: { ...open.executor, execute } });
      reach('commit:before');
      return value;
    }, limits);
    reach('commit:after');
    return result;
  },
});
