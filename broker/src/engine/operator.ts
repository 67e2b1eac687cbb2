import { EscrowError, type ResolveRequest, type TransactionAnswer } from '@escrowmq/protocol';
import { recheck, resend } from '../domain/decide.js';
import type { Store } from '../domain/ports.js';
import type { Intake } from './intake.js';
import type { StoreClock } from './store-clock.js';

/** What an operator may do with one transaction; each word of his is recorded with its reason. */
export interface OperatorDeps {
  store: Pick<Store, 'find' | 'resolve' | 'appendHistory'>;
  decide: Intake['decide'];
  clock: StoreClock;
  /** Tells the loops that something became due. */
  wake(): void;
}

export function createResolve(
  deps: OperatorDeps,
): (id: string, request: ResolveRequest) => Promise<TransactionAnswer> {
  const { store, clock } = deps;

  return async (id, { action, operator, reason }) => {
    const history = {
      at: clock.now(),
      event: 'resolve',
      detail: { action, operator, reason },
    } as const;
    if (action === 'commit' || action === 'rollback') {
      const decidedBy = { by: `operator ${operator}`, reason };
      const answer = await deps.decide({ id, decision: action, decidedBy });
      await store.appendHistory([{ id, event: history }]);
      return answer;
    }

    const found = (await store.find([id])).get(id);
    if (found === undefined) {
      throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
    }
    if (found.kind === 'tombstone') {
      throw new EscrowError('STATE_CONFLICT', `transaction ${id} is finished and purged`);
    }
    const event = action === 'recheck' ? recheck : resend;
    const outcome = event(found.state, clock.now());
    const legal =
      action === 'recheck'
        ? 'recheck is for prepared or parked unresolved transactions'
        : 'resend is for committed or parked undeliverable transactions';
    if (outcome.kind !== 'move') {
      throw new EscrowError(
        'STATE_CONFLICT',
        `transaction ${id} is ${found.state.state}; ${legal}`,
      );
    }
    const moved = await store.resolve({ id, from: found.state, to: outcome.to, history });
    if (!moved) {
      throw new EscrowError(
        'STATE_CONFLICT',
        `transaction ${id} changed while it was being resolved; look at it again`,
      );
    }
    deps.wake();
    return { id, state: outcome.to.state };
  };
}
