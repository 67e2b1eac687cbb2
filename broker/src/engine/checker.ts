import { createCoalescer, EscrowError, type HistoryEvent } from '@escrowmq/protocol';
import { checkSaidUnknown, checkUnanswered, type Outcome } from '../domain/decide.js';
import type {
  Asker,
  CheckOutcome,
  CheckToSave,
  DueCheck,
  Observer,
  ProducerGroup,
  Store,
} from '../domain/ports.js';
import type { Intake } from './intake.js';
import type { StoreClock } from './store-clock.js';

/**
 * Asks producers about transactions without a verdict.
 *
 * Only an explicit, well-formed answer decides, and it decides as any verdict does: guarded, once.
 * Only `unknown` spends an attempt; when they are spent the transaction is parked, never rolled
 * back. No answer spends nothing: the next check comes later, and after `alertAfterMs` somebody is
 * told while checks go on.
 *
 * A crash after the claim: the lease runs out and another check follows. A crash after the answer
 * and before it is saved: the same; the producer's barrier gives the same answer again.
 */
export interface CheckerDeps {
  store: Pick<Store, 'claimDueChecks' | 'saveChecks' | 'releaseChecks' | 'appendHistory'>;
  asker: Asker;
  findGroup(name: string): Promise<ProducerGroup | undefined>;
  decide: Intake['decide'];
  clock: StoreClock;
  /** In [0, 1), for jitter. */
  random(): number;
  observer: Pick<Observer, 'alert' | 'failed' | 'count'>;
}

export interface Checker {
  /** One pass: claims what is due and asks; resolves with how many it began. */
  checkOnce(): Promise<number>;
  /** Resolves when no check is under way. */
  idle(): Promise<void>;
}

/**
 * Checks under way at a time, over all groups: 32 groups at the default limit of 8 for an
 * endpoint, so that a few whose endpoints hang do not take all of it.
 */
const CONCURRENT_MAX = 256;
/** Longer than the longest answer a policy may wait for (30 s), so that no check runs twice. */
const LEASE_MS = 45_000;
const SAVE_ROWS_MAX = 100;

/** For a group that vanished, which only a restored backup can bring about. */
const NO_POLICY = {
  firstDelayMs: 10_000,
  delayMsMax: 300_000,
  unknownMax: 15,
  alertAfterMs: 3_600_000,
};

export function createChecker(deps: CheckerDeps): Checker {
  const { store, asker, clock, observer } = deps;
  const underWay = new Set<Promise<void>>();

  const saves = createCoalescer<CheckToSave, undefined>({
    flush: async (batch) => {
      await store.saveChecks(batch);
      return batch.map(() => undefined);
    },
    batchMax: SAVE_ROWS_MAX,
    keyOf: (item) => item.id,
    waitingMax: CONCURRENT_MAX * 2,
    refuse: () => new EscrowError('BROKER_BUSY', 'too many check results wait for the store'),
  });

  async function ask(due: DueCheck, group: ProducerGroup | undefined): Promise<CheckOutcome> {
    if (group === undefined) {
      const detail = `producer group ${due.producerGroup} is not registered`;
      return { kind: 'unanswered', tookMs: 0, detail };
    }
    return asker.ask(group, {
      id: due.id,
      producerGroup: due.producerGroup,
      ...(due.checkContext === undefined ? {} : { checkContext: due.checkContext }),
      businessKeys: due.businessKeys,
      preparedAt: due.preparedAt,
      attempt: due.state.checks + due.state.unanswered + 1,
    });
  }

  async function check(due: DueCheck, group: ProducerGroup | undefined): Promise<void> {
    const outcome = await ask(due, group);
    const answer = outcome.kind === 'answered' ? outcome.decision : 'none';
    observer.count('checks', { outcome: answer });
    if (outcome.kind === 'answered' && outcome.decision !== 'unknown') {
      await settle(due, outcome.decision, outcome);
    } else {
      await saves.call(resultOf(due, group, outcome));
    }
  }

  async function settle(
    due: DueCheck,
    decision: 'commit' | 'rollback',
    outcome: CheckOutcome,
  ): Promise<void> {
    const event = eventOf(outcome, clock.now());
    try {
      await deps.decide({ id: due.id, decision, decidedBy: { by: `check ${outcome.endpoint}` } });
    } catch (error) {
      // The producer's own verdict came first and differs: its word stands, and this is recorded.
      if (!(error instanceof EscrowError) || error.code !== 'STATE_CONFLICT') throw error;
      observer.failed(`a check contradicts the decision on ${due.id}`, error);
      event.event = 'conflict';
    }
    await store.appendHistory([{ id: due.id, event }]);
  }

  function resultOf(
    due: DueCheck,
    group: ProducerGroup | undefined,
    outcome: CheckOutcome,
  ): CheckToSave {
    const now = clock.now();
    const policy = { ...(group?.checkPolicy ?? NO_POLICY), jitter: deps.random() };
    const answered = outcome.kind === 'answered';
    const decided: Outcome = answered
      ? checkSaidUnknown(due.state, policy, now)
      : checkUnanswered(due.state, policy, now);
    const to = decided.kind === 'move' ? decided.to : due.state;
    const history = [eventOf(outcome, now)];
    if (to.state === 'parked') {
      history.push({ at: now, event: 'parked', detail: { reason: 'unresolved' } });
      alert(due, 'parked', `answered "unknown" ${due.state.checks + 1} times`);
    }
    if (answered) return { id: due.id, from: due.state, to, alerted: false, history };

    const unansweredSince = due.unansweredSince ?? now;
    const overdue = now - unansweredSince >= policy.alertAfterMs;
    if (overdue && !due.alerted) alert(due, 'checkUnanswered', outcome.detail);
    const alerted = due.alerted || overdue;
    return { id: due.id, from: due.state, to, unansweredSince, alerted, history };
  }

  /** Told before it is saved: a crash in between tells it twice, the other order never. */
  function alert(due: DueCheck, kind: 'parked' | 'checkUnanswered', detail: string): void {
    const { id, producerGroup } = due;
    observer.alert({ kind, transactionId: id, producerGroup, detail });
  }

  /** Begins a check, unless its group's endpoints have no room for it. */
  function begin(due: DueCheck, group: ProducerGroup | undefined): boolean {
    if (group !== undefined && asker.roomFor(group) <= 0) return false;
    const running = check(due, group)
      // The lease runs out and the check is repeated.
      .catch((error) => observer.failed(`check ${due.id}`, error))
      .finally(() => underWay.delete(running));
    underWay.add(running);
    return true;
  }

  return {
    async checkOnce() {
      const limit = CONCURRENT_MAX - underWay.size;
      if (limit <= 0) return 0;
      const exceptGroups = asker.busyGroups();
      const { due } = await store.claimDueChecks({ limit, leaseMs: LEASE_MS, exceptGroups });
      const groups = new Map<string, ProducerGroup | undefined>();
      for (const { producerGroup } of due) {
        if (!groups.has(producerGroup))
          groups.set(producerGroup, await deps.findGroup(producerGroup));
      }
      const tooMany = due.filter((item) => !begin(item, groups.get(item.producerGroup)));
      // What one group's endpoints have no room for must not take the place of another group's
      // checks. It is due again at once, and left out of claims until there is room.
      if (tooMany.length > 0) await store.releaseChecks(tooMany.map(({ id }) => id));
      return due.length;
    },
    async idle() {
      await Promise.all(underWay);
      await saves.idle();
    },
  };
}

function eventOf(outcome: CheckOutcome, at: number): HistoryEvent {
  const { endpoint, tookMs } = outcome;
  const answer = outcome.kind === 'answered' ? outcome.decision : 'none';
  return {
    at,
    event: 'check',
    detail: {
      answer,
      tookMs,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(outcome.kind === 'unanswered' ? { detail: outcome.detail } : {}),
    },
  };
}
