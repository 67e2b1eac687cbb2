import { Deadline, within } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import type { Answer, Asker, Forgery } from './asker.js';
import type { KitProxy } from './database-proxy.js';
import { deferred } from './deferred.js';
import { type AskedCheck, type Evidence, judge, type Moment } from './judge.js';
import type { Episode, KitBroker, KitTransaction, Op } from './kit-broker.js';

/** One call of the producer's transaction, as the producer's code sees it. */
export interface Attempt {
  /** For the business rows: a whole number from 1 to 2^31 - 1 that no other attempt has. */
  readonly number: number;
  /**
   * To be awaited inside the open local transaction, behind its last statement. It may take seconds,
   * and it rejects where the scenario wants a rollback: let the error through.
   */
  pause(): Promise<void>;
}

/** The producer under test. */
export interface Subject {
  transaction(attempt: Attempt): Promise<unknown>;
  committed(attempt: Attempt): Promise<boolean>;
  /** Milliseconds. */
  transactionTimeoutMs: number;
  /** Milliseconds. */
  settleTimeoutMs: number;
}

export interface TrialDeps {
  broker: KitBroker;
  asker: Asker;
  subject: Subject;
  proxy: KitProxy | undefined;
  attemptNumber: number;
}

/** One scenario's hold on one attempt. All of it throws INVALID_CONFIGURATION where the set-up is wrong. */
export interface Trial {
  /** The proxy before the database; `undefined` where the kit has none. */
  readonly proxy: KitProxy | undefined;
  /** What the producer sent, and what happens to it. */
  readonly episode: Episode;
  /** Whether the call was begun. */
  readonly hasStarted: boolean;
  /** Whether the local transaction waits in `pause` or the call has ended. */
  readonly hasPassed: boolean;
  /** Calls the producer's transaction, which commits, rolls back, or waits in `pause`. */
  start(local: 'commits' | 'rolls back' | 'waits'): void;
  /** Until the broker has the prepare. */
  prepared(): Promise<KitTransaction>;
  /** Until the local transaction waits in `pause`. */
  paused(): Promise<void>;
  /** Until `pause` is awaited or the call has ended. */
  passed(): Promise<void>;
  /** Until the producer has sent this, or its call has ended without. */
  arrivedOrEnded(op: Op): Promise<void>;
  /** Until `event`, which the call brings about. @throws when the call ends without it */
  during(event: Promise<void>, otherwise: string): Promise<void>;
  /** Lets a transaction that waits in `pause` go on, to its COMMIT or its ROLLBACK. */
  resume(local: 'commits' | 'rolls back'): void;
  /** Asks once for every transaction that the broker holds. */
  ask(moment: Moment): Promise<Answer[]>;
  /** Asks for one as somebody else would; what comes of it is not evidence. */
  forge(transaction: KitTransaction, forgery: Forgery): Promise<Answer>;
  /** Puts a finding on record. */
  condemn(finding: string): void;
  /**
   * Nothing that the scenario does is a reason to roll back.
   *
   * @param finding where it rolls back all the same; without, the set-up is wrong
   */
  mustCommit(finding?: string): void;
  /** Says that the connection was cut at COMMIT. */
  commitWasCut(): void;
  /** Waits until the call has ended and compares what was seen. */
  conclude(): Promise<Conclusion>;
}

/** What came of a trial. */
export interface Conclusion {
  /** A sentence or two for each mistake. */
  findings: string[];
  /** What was seen. */
  evidence: Evidence;
}

/** Between two checks that found nothing decided. */
const ASK_PAUSE_MS = 100;
/** An answer must be the same when it is asked for again. */
const REPEATS = 2;

type Ended = { value: unknown } | { error: unknown };

export function createTrial({ broker, asker, subject, proxy, attemptNumber }: TrialDeps): Trial {
  const episode = broker.begin();
  const findings: string[] = [];
  const checks = new Map<string, AskedCheck[]>();
  const pausing = deferred();
  const resumed = deferred();
  const over = deferred();
  let local: 'commits' | 'rolls back' | 'waits' = 'commits';
  let hasStarted = false;
  let wasPaused = false;
  let isCommitCut = false;
  let unlessCommitted: { finding: string | undefined } | undefined;
  let ended: Ended | undefined;

  const attempt: Attempt = {
    number: attemptNumber,
    async pause() {
      wasPaused = true;
      if (local === 'waits') {
        pausing.resolve();
        await resumed.promise;
      }
      if (local === 'rolls back') {
        throw new Error(
          'the fault kit wants this local transaction to roll back; let this through',
        );
      }
    },
  };

  const misused = (what: string) =>
    new EscrowError('INVALID_CONFIGURATION', `the fault kit can't go on: ${what}`, {
      cause: ended !== undefined && 'error' in ended ? ended.error : undefined,
    });
  const threw = () =>
    ended === undefined || !('error' in ended) ? '' : ` It threw: ${String(ended.error)}`;

  async function during(event: Promise<void>, otherwise: string): Promise<void> {
    let hasHappened = false;
    const happened = event.then(() => {
      hasHappened = true;
    });
    await limited(Promise.race([happened, over.promise]), otherwise);
    if (!hasHappened) throw misused(`${otherwise}.${threw()}`);
  }

  function limited(work: Promise<void>, otherwise: string): Promise<void> {
    const limitMs = subject.transactionTimeoutMs;
    return within(work, limitMs, {
      error: () => misused(`${otherwise}; the call goes on after ${limitMs} ms`),
    });
  }

  async function askOne(transaction: KitTransaction, moment: Moment): Promise<Answer> {
    const answer = await asker.ask(transaction);
    const asked = checks.get(transaction.id) ?? [];
    checks.set(transaction.id, [...asked, { moment, answer }]);
    if (answer.decision === 'commit' || answer.decision === 'rollback') {
      broker.decide(transaction, answer.decision);
    }
    return answer;
  }

  /** As the broker does: until an answer decides. Then again, as the answer must stay. */
  async function settle(transaction: KitTransaction): Promise<void> {
    const deadline = new Deadline(subject.settleTimeoutMs);
    for (let decided = 0; decided < REPEATS; ) {
      const { decision } = await askOne(transaction, 'after it had ended');
      if (decision === 'commit' || decision === 'rollback') decided += 1;
      else if (!(await deadline.pause(ASK_PAUSE_MS))) return;
    }
  }

  const stored = () => episode.transactions.filter(({ isStored }) => isStored);

  async function end(): Promise<void> {
    try {
      await within(over.promise, subject.transactionTimeoutMs, { error: () => new Error('late') });
    } catch {
      findings.push(
        `the call of transaction() did not end within ${subject.transactionTimeoutMs} ms: bound what it waits for.`,
      );
    }
  }

  return {
    proxy,
    episode,
    get hasStarted() {
      return hasStarted;
    },
    get hasPassed() {
      return wasPaused || ended !== undefined;
    },
    start(how) {
      hasStarted = true;
      local = how;
      (async () => subject.transaction(attempt))().then(
        (value) => {
          ended = { value };
          over.resolve();
        },
        (error: unknown) => {
          ended = { error };
          over.resolve();
        },
      );
    },
    async prepared() {
      const otherwise = `transaction() sent no prepare to ${broker.address}`;
      await during(episode.arrival('prepare'), otherwise);
      const [first] = episode.transactions;
      if (first === undefined) throw misused(otherwise);
      return first;
    },
    paused: () => during(pausing.promise, 'transaction() did not await pause()'),
    passed: () =>
      limited(
        Promise.race([pausing.promise, over.promise]),
        'transaction() neither awaited pause() nor ended',
      ),
    arrivedOrEnded: (op) =>
      limited(
        Promise.race([episode.arrival(op), over.promise]),
        `transaction() neither sent a ${op} nor ended`,
      ),
    during,
    resume(how) {
      local = how;
      resumed.resolve();
    },
    ask: (moment) => Promise.all(stored().map((transaction) => askOne(transaction, moment))),
    forge: (transaction, forgery) => asker.ask(transaction, forgery),
    condemn: (finding) => {
      findings.push(finding);
    },
    mustCommit(finding) {
      unlessCommitted = { finding };
    },
    commitWasCut() {
      isCommitCut = true;
    },
    async conclude() {
      await end();
      const { transactions } = episode;
      if (transactions.length === 0) {
        throw misused(`transaction() sent no prepare to ${broker.address}.${threw()}`);
      }
      const committed = await subject.committed(attempt);
      if (committed && !wasPaused) {
        throw misused('transaction() committed without awaiting pause() inside');
      }
      if (committed && local === 'rolls back') {
        throw misused('transaction() committed although pause() rejected: let its error through');
      }
      if (!committed && unlessCommitted !== undefined) {
        const { finding } = unlessCommitted;
        if (finding === undefined) throw misused(`transaction() did not commit.${threw()}`);
        findings.push(finding + threw());
      }
      for (const transaction of stored()) await settle(transaction);
      const evidence: Evidence = {
        committed,
        claimedCommitted: claimsCommit(ended),
        isCommitCut,
        transactions: transactions.map(({ id, isStored, verdicts }) => ({
          id,
          isStored,
          verdicts,
          checks: checks.get(id) ?? [],
        })),
      };
      return { findings: [...findings, ...judge(evidence)], evidence };
    },
  };
}

function claimsCommit(ended: Ended | undefined): boolean {
  if (ended === undefined || !('value' in ended)) return false;
  const { value } = ended;
  return (
    typeof value === 'object' &&
    value !== null &&
    'outcome' in value &&
    value.outcome === 'committed'
  );
}
