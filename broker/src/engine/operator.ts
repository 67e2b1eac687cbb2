import {
  EscrowError,
  type HistoryEvent,
  type ResolveRequest,
  type TransactionAnswer,
} from '@escrowmq/protocol';
import type { NotClosable } from '../domain/closing.js';
import { recheck, resend } from '../domain/decide.js';
import type { Store } from '../domain/ports.js';
import type { Intake } from './intake.js';
import type { StoreClock } from './store-clock.js';

/** What an operator may do with one transaction; each word of his is recorded with its reason. */
export interface OperatorDeps {
  store: Pick<Store, 'find' | 'resolve' | 'appendHistory' | 'closeUnsettled' | 'endCompensations'>;
  decide: Intake['decide'];
  clock: StoreClock;
  /** Tells the loops that something became due. */
  wake(): void;
}

export function createResolve(
  deps: OperatorDeps,
): (id: string, request: ResolveRequest) => Promise<TransactionAnswer> {
  const { store, clock } = deps;

  async function findRow(id: string) {
    const found = (await store.find([id])).get(id);
    if (found === undefined) {
      throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
    }
    if (found.kind === 'tombstone') {
      throw new EscrowError('STATE_CONFLICT', `transaction ${id} is finished and purged`);
    }
    return found;
  }

  async function endCompensations(id: string, history: HistoryEvent): Promise<TransactionAnswer> {
    const { state } = await findRow(id);
    // The state does not matter: a transaction that is forwarded in part may owe one as well.
    const ended = await store.endCompensations({ id, history });
    if (ended.length > 0) return { id, state: state.state };
    throw new EscrowError(
      'STATE_CONFLICT',
      `transaction ${id} owes no compensation; compensated is for those that no producer has acknowledged yet`,
    );
  }

  async function close(
    { operator, reason }: ResolveRequest,
    id: string,
  ): Promise<TransactionAnswer> {
    const result = await store.closeUnsettled({ id, operator, reason });
    switch (result.kind) {
      case 'closed': {
        const { closed, purged } = result;
        return { id, state: 'forwarded', closed, ...(purged === undefined ? {} : { purged }) };
      }
      case 'refused':
        throw new EscrowError('STATE_CONFLICT', `transaction ${id} ${notClosable(result.why)}`);
      case 'purged':
        throw new EscrowError('STATE_CONFLICT', `transaction ${id} is finished and purged`);
      case 'unknown':
        throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
    }
  }

  async function move(
    id: string,
    action: 'recheck' | 'resend',
    history: HistoryEvent,
  ): Promise<TransactionAnswer> {
    const { state } = await findRow(id);
    const event = action === 'recheck' ? recheck : resend;
    const outcome = event(state, clock.now());
    const legal =
      action === 'recheck'
        ? 'recheck is for prepared or parked unresolved transactions'
        : 'resend is for committed or parked undeliverable transactions';
    if (outcome.kind !== 'move') {
      throw new EscrowError('STATE_CONFLICT', `transaction ${id} is ${state.state}; ${legal}`);
    }
    const moved = await store.resolve({ id, from: state, to: outcome.to, history });
    if (!moved) {
      throw new EscrowError(
        'STATE_CONFLICT',
        `transaction ${id} changed while it was being resolved; look at it again`,
      );
    }
    deps.wake();
    return { id, state: outcome.to.state };
  }

  return async (id, request) => {
    const { action, operator, reason } = request;
    if (action === 'close') return close(request, id);
    const history = {
      at: clock.now(),
      event: 'resolve',
      detail: { action, operator, reason },
    } as const;
    if (action === 'compensated') return endCompensations(id, history);
    if (action === 'recheck' || action === 'resend') return move(id, action, history);
    const decidedBy = { by: `operator ${operator}`, reason };
    const answer = await deps.decide({ id, decision: action, decidedBy });
    await store.appendHistory([{ id, event: history }]);
    return answer;
  };
}

/** What would be legal instead. */
function notClosable(why: NotClosable): string {
  switch (why.kind) {
    case 'settled':
      return why.state === 'rolledBack'
        ? 'is rolledBack, which is settled; there is nothing to close'
        : 'has settled; there is nothing to close';
    case 'owes':
      return (
        `owes ${why.compensations} compensations; wait until the producer has acknowledged them, ` +
        'or resolve it as compensated when they are done by hand, then close it'
      );
    case 'open':
      return (
        `is ${why.state}; close is for forwarded transactions that have not settled. ` +
        'Decide, recheck, resend or cancel what is open'
      );
  }
}
