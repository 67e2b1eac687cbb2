import {
  type CheckAnswer,
  createCoalescer,
  type ErrorCode,
  EscrowError,
  type HistoryEvent,
  type MessageData,
} from '@escrowmq/protocol';
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
import { type CheckPolls, POLL_ENDPOINT } from './check-polls.js';
import type { Intake } from './intake.js';
import type { StoreClock } from './store-clock.js';

/**
 * Asks producers about transactions without a verdict.
 *
 * Only an explicit, well-formed answer decides, and it decides as any verdict does: guarded, once.
 * A "commit" whose data does not fit what prepare left open is no answer.
 * Only `unknown` spends an attempt; when they are spent the transaction is parked, never rolled
 * back. No answer spends nothing: the next check comes later, and after `alertAfterMs` somebody is
 * told while checks go on.
 *
 * A crash after the claim: the lease runs out and another check follows. A crash after the answer
 * and before it is saved: the same; the producer's barrier gives the same answer again.
 */
export interface CheckerDeps {
  store: Pick<Store, 'claimDueChecks' | 'saveChecks' | 'releaseChecks' | 'appendHistory'>;
  asker: Asker & Pick<CheckPolls, 'unpolled'>;
  findGroup(name: string): Promise<ProducerGroup | undefined>;
  decide: Intake['decide'];
  /** One transaction as JSON, with the data that its commit supplies. */
  transactionBytesMax: number;
  clock: StoreClock;
  /** In [0, 1), for jitter. */
  random(): number;
  observer: Pick<Observer, 'alert' | 'failed' | 'warn' | 'count'>;
}

export interface Checker {
  /** One pass: claims what is due and asks; resolves with how many it began. */
  checkOnce(): Promise<number>;
  /**
   * An answer for which no check is under way here: late, or to another instance's. It decides as
   * well, within its group; what it can't decide is on record or of no use.
   */
  takeLate(producerGroup: string, answer: CheckAnswer): Promise<void>;
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

/** What a "commit" is refused for when its data does not fit what prepare left open. */
const DATA_REFUSALS: ReadonlySet<string> = new Set<ErrorCode>([
  'MESSAGE_DATA_MISSING',
  'INVALID_REQUEST',
  'BODY_TOO_LARGE',
]);

/** For a group that vanished, which only a restored backup can bring about. */
const NO_POLICY = {
  firstDelayMs: 10_000,
  delayMsMax: 300_000,
  unknownMax: 15,
  alertAfterMs: 3_600_000,
};

/** An answer that decides. */
interface Answer {
  decision: 'commit' | 'rollback';
  messageData?: MessageData[] | undefined;
  endpoint: string;
}

type CheckVerdict =
  /** `isNews`: by this very answer. */
  | { kind: 'decided'; isNews: boolean }
  | { kind: 'contradicts'; isPurged: boolean }
  /** Its data does not fit what prepare left open. */
  | { kind: 'refused'; detail: string };

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
    const request = {
      id: due.id,
      producerGroup: due.producerGroup,
      ...(due.checkContext === undefined ? {} : { checkContext: due.checkContext }),
      businessKeys: due.businessKeys,
      preparedAt: due.preparedAt,
      attempt: due.state.checks + due.state.unanswered + 1,
    };
    return asker.ask(group, request, due.trace);
  }

  async function check(due: DueCheck, group: ProducerGroup | undefined): Promise<void> {
    const outcome = await ask(due, group);
    if (outcome.kind === 'unanswered' || outcome.decision === 'unknown') {
      return record(due, group, outcome);
    }
    const { decision, endpoint, tookMs, messageData } = outcome;
    const verdict = await decideBy(due.id, { decision, endpoint, messageData });
    if (verdict.kind === 'refused') {
      const { detail } = verdict;
      return record(due, group, { kind: 'unanswered', endpoint, tookMs, detail });
    }
    observer.count('checks', { outcome: decision });
    const event = eventOf(outcome, clock.now());
    if (verdict.kind === 'contradicts') event.event = 'conflict';
    await store.appendHistory([{ id: due.id, event }]);
  }

  /** What decides nothing: the next check comes later. */
  async function record(
    due: DueCheck,
    group: ProducerGroup | undefined,
    outcome: CheckOutcome,
  ): Promise<void> {
    const isAnswered = outcome.kind === 'answered';
    observer.count('checks', { outcome: isAnswered ? outcome.decision : 'none' });
    if (!isAnswered) tellUnanswered(due, outcome);
    await saves.call(resultOf(due, group, outcome));
  }

  /** At once, and not when the group's patience ends; the alert comes then. */
  function tellUnanswered(
    { id, producerGroup }: DueCheck,
    { endpoint, detail }: Extract<CheckOutcome, { kind: 'unanswered' }>,
  ): void {
    const facts = { producerGroup, transactionId: id, endpoint, detail };
    observer.warn(
      'a check has no answer and is asked again',
      facts,
      `${producerGroup} ${endpoint}`,
    );
  }

  async function decideBy(
    id: string,
    { decision, messageData, endpoint }: Answer,
    producerGroup?: string,
  ): Promise<CheckVerdict> {
    const supplied =
      messageData === undefined
        ? undefined
        : { data: messageData, bytesMax: deps.transactionBytesMax };
    const decidedBy = { by: `check ${endpoint}` };
    try {
      const answer = await deps.decide({ id, decision, decidedBy, producerGroup, supplied });
      return { kind: 'decided', isNews: answer.decision === undefined };
    } catch (error) {
      if (!(error instanceof EscrowError)) throw error;
      if (DATA_REFUSALS.has(error.code)) return { kind: 'refused', detail: error.message };
      // The producer's own verdict came first and differs: its word stands, and this is recorded.
      if (error.code !== 'STATE_CONFLICT') throw error;
      observer.failed(`a check contradicts the decision on ${id}`, error);
      return { kind: 'contradicts', isPurged: error.details.purged === true };
    }
  }

  /** On record, unless it says nothing new or there is no row to record it with. */
  async function settleLate(id: string, answer: Answer, producerGroup: string): Promise<void> {
    const verdict = await decideBy(id, answer, producerGroup);
    if (verdict.kind === 'decided' && !verdict.isNews) return;
    if (verdict.kind === 'contradicts' && verdict.isPurged) return;
    const { decision, endpoint } = answer;
    const isRefused = verdict.kind === 'refused';
    observer.count('checks', { outcome: isRefused ? 'none' : decision });
    const event: HistoryEvent = {
      at: clock.now(),
      event: verdict.kind === 'contradicts' ? 'conflict' : 'check',
      detail: {
        answer: isRefused ? 'none' : decision,
        endpoint,
        late: true,
        ...(isRefused ? { detail: verdict.detail } : {}),
      },
    };
    await store.appendHistory([{ id, event }]);
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
      const { due } = await store.claimDueChecks({
        limit,
        leaseMs: LEASE_MS,
        exceptGroups: asker.busyGroups(),
        onlyOverdue: asker.unpolled(),
      });
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
    async takeLate(producerGroup, { id, decision, messageData }) {
      if (decision === 'unknown') return;
      try {
        await settleLate(id, { decision, messageData, endpoint: POLL_ENDPOINT }, producerGroup);
      } catch (error) {
        // Never was, is another group's, or is gone: there is nothing that it could decide.
        if (!(error instanceof EscrowError) || error.code !== 'TRANSACTION_NOT_FOUND') throw error;
      }
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
