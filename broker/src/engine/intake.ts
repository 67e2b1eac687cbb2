import {
  createCoalescer,
  EscrowError,
  LIMITS,
  type PrepareRequest,
  type SendRequest,
  type TransactionAnswer,
  timeOfId,
} from '@escrowmq/protocol';
import { contentHash } from '../domain/content-hash.js';
import { commit, rollback } from '../domain/decide.js';
import { mustWait, untilFirstMs } from '../domain/delivery-time.js';
import { anyOpen } from '../domain/open-messages.js';
import type {
  Found,
  Inserted,
  Observer,
  ProducerGroup,
  Store,
  Verdict,
  VerdictResult,
} from '../domain/ports.js';
import type { NewTransaction, TraceContext } from '../domain/transaction.js';
import { dataRefused } from './data-refused.js';
import type { HeldTransactions } from './held-transactions.js';
import type { StoreClock } from './store-clock.js';

/**
 * Takes transactions in and verdicts on them. Concurrent calls share one INSERT or UPDATE; a call
 * is answered when its own row is durable, never before.
 *
 * A crash before the flush: nothing was acknowledged, the caller repeats with the same id. A crash
 * after it: the repeat finds the row and is answered from it. A crash between a commit's UPDATE
 * and its forwarding: the lease runs out and recovery forwards it, here or at another instance.
 */
export interface IntakeDeps {
  store: Pick<Store, 'insert' | 'decide' | 'find'>;
  clock: StoreClock;
  groups: {
    /** What is known of a group at once, and else from the store. */
    cached(name: string): ProducerGroup | undefined;
    find(name: string): Promise<ProducerGroup | undefined>;
  };
  held: HeldTransactions;
  forwarder: {
    /** How long the rows of the next flush may be leased to this instance; 0: not at all. */
    leaseMs(): number;
    /** Forwards what this instance has just moved to committed, until `leaseEndsAt`. */
    forwardMoved(ids: string[], leaseEndsAt: number): void;
  };
  newId(): string;
  observer: Pick<Observer, 'count' | 'info'>;
}

export interface Intake {
  prepare(request: PrepareRequest, trace: TraceContext): Promise<Accepted>;
  send(request: SendRequest, trace: TraceContext): Promise<Accepted>;
  /**
   * Rejects with `TRANSACTION_NOT_FOUND` or, with the decision on record, `STATE_CONFLICT`; a commit
   * whose data does not fit what prepare left open with `MESSAGE_DATA_MISSING`, `INVALID_REQUEST` or
   * `BODY_TOO_LARGE`.
   */
  decide(verdict: Verdict): Promise<TransactionAnswer>;
  /** Resolves when nothing waits for the store any more. */
  idle(): Promise<void>;
}

export interface Accepted {
  created: boolean;
  answer: TransactionAnswer;
}

const BATCH_ROWS_MAX = 500;
/** What is held at once while a flush is under way. The store splits it into what its database takes. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024;
/** When full, prepares are refused first: a verdict frees something, a prepare adds to it. */
const WAITING_PREPARES_MAX = 10_000;
/** What waits is held in memory twice, as values and as the JSON that is stored. */
const WAITING_PREPARES_BYTES_MAX = 64 * 1024 * 1024;
const WAITING_VERDICTS_MAX = 50_000;
/**
 * Tombstones are older than the shortest retention (two hours) and an id's time is at most an hour
 * ahead of its prepare, so a younger id has none and its insert need not look.
 */
const TOMBSTONE_AGE_MS_MIN = 60 * 60 * 1000;

const busy = (what: string) => () =>
  new EscrowError('BROKER_BUSY', `too many ${what} wait for the store; try again shortly`);

export function createIntake(deps: IntakeDeps): Intake {
  const { store, clock, held, forwarder, observer } = deps;

  const inserts = createCoalescer<NewTransaction, Inserted>({
    flush: flushInserts,
    batchMax: BATCH_ROWS_MAX,
    batchBytesMax: BATCH_BYTES_MAX,
    sizeOf: (transaction) => transaction.bytes,
    keyOf: (transaction) => transaction.id,
    waitingMax: WAITING_PREPARES_MAX,
    waitingBytesMax: WAITING_PREPARES_BYTES_MAX,
    refuse: busy('prepares'),
  });
  const verdicts = createCoalescer<Verdict, VerdictResult>({
    flush: flushVerdicts,
    batchMax: BATCH_ROWS_MAX,
    keyOf: (verdict) => verdict.id,
    waitingMax: WAITING_VERDICTS_MAX,
    refuse: busy('verdicts'),
  });

  async function flushInserts(batch: NewTransaction[]): Promise<Inserted[]> {
    // Counted from before the statement: the store's lease can only end later than ours.
    const startedAt = performance.now();
    const results = await store.insert(batch);
    const sent: NewTransaction[] = [];
    batch.forEach((transaction, index) => {
      if (results[index]?.kind !== 'created') return;
      const { kind } = transaction;
      // A send without a lease is recovered from the store: held, it would only push out others.
      if (kind.op === 'send' && (kind.leaseMs === 0 || kind.waits === true)) return;
      // Whoever forwards must never see an open message: it is read from the store, filled. What may
      // have to wait is read as well, with the time by which that is judged.
      const { messages } = transaction;
      if (!anyOpen(messages) && !mustWait(messages)) held.put(transaction);
      if (kind.op === 'send') sent.push(transaction);
    });
    for (const [leaseMs, ids] of byLease(sent)) forwarder.forwardMoved(ids, startedAt + leaseMs);
    return results;
  }

  async function flushVerdicts(batch: Verdict[]): Promise<VerdictResult[]> {
    const leaseMs = forwarder.leaseMs();
    const startedAt = performance.now();
    const results = await store.decide(batch, leaseMs);
    const committed: string[] = [];
    batch.forEach(({ id, decision }, index) => {
      if (results[index]?.kind !== 'moved') return;
      if (decision === 'commit') committed.push(id);
      else held.take(id);
    });
    if (leaseMs > 0 && committed.length > 0) {
      forwarder.forwardMoved(committed, startedAt + leaseMs);
    } else {
      for (const id of committed) held.take(id);
    }
    return results;
  }

  /** Refuses an id whose tombstone may be gone, unless there is still something under it. */
  async function refuseUnlessFound(id: string, age: number): Promise<void> {
    const found = await store.find([id]);
    if (found.has(id)) return;
    throw new EscrowError(
      'ID_TIME_OUT_OF_RANGE',
      `the time inside id ${id} is ${age > 0 ? 'more than 29 days old' : 'over an hour ahead'}; ` +
        'make a new UUIDv7 for a new transaction, and check the clock of the machine that made this one',
    );
  }

  async function groupNamed(name: string): Promise<ProducerGroup> {
    const group = await deps.groups.find(name);
    if (group !== undefined) return group;
    throw new EscrowError(
      'UNKNOWN_PRODUCER_GROUP',
      `producer group ${name} is not registered; register it with PUT /v1/producer-groups/${name}`,
    );
  }

  /** Leased to this instance, or, when nothing of it may go yet, due when the first message may. */
  function sendOf({ messages }: SendRequest): NewTransaction['kind'] {
    if (mustWait(messages)) {
      const leaseMs = untilFirstMs(messages, clock.now());
      if (leaseMs > 0) return { op: 'send', leaseMs, waits: true };
    }
    return { op: 'send', leaseMs: forwarder.leaseMs() };
  }

  async function accept(
    request: PrepareRequest | SendRequest,
    trace: TraceContext,
    kindOf: (group: ProducerGroup) => NewTransaction['kind'],
  ): Promise<Accepted> {
    const { producerGroup, businessKeys, expects, messages } = request;
    const { checkContext, checkAfterMs }: Partial<PrepareRequest> = request;
    const group = deps.groups.cached(producerGroup) ?? (await groupNamed(producerGroup));
    const id = request.id ?? deps.newId();
    const now = clock.now();
    const age = now - timeOfId(id);
    if (age > LIMITS.idAgeMsMax || age < -LIMITS.idAheadMsMax) await refuseUnlessFound(id, age);
    const kind = kindOf(group);
    const content = { id, producerGroup, businessKeys, expects, checkContext, messages, trace };
    const messagesJson = JSON.stringify(messages);
    // Written out, and not by a copy of `content`: objects that are always made the same way are
    // read the fast way, from here to RabbitMQ.
    const result = await inserts.call({
      id,
      producerGroup,
      businessKeys,
      expects,
      checkContext,
      messages,
      trace,
      contentHash: contentHash(content, kind.op, checkAfterMs),
      preparedAt: now,
      messagesJson,
      bytes: Buffer.byteLength(messagesJson),
      mayBePurged: age > TOMBSTONE_AGE_MS_MIN || age < -LIMITS.idAheadMsMax,
      kind,
    });
    return acceptedOf(id, kind.op, result);
  }

  function acceptedOf(id: string, op: 'prepare' | 'send', result: Inserted): Accepted {
    switch (result.kind) {
      case 'created': {
        observer.count('transactionsAccepted', { kind: op });
        const state = op === 'prepare' ? 'prepared' : 'committed';
        return { created: true, answer: { id, state } };
      }
      case 'repeated':
        return { created: false, answer: answerOf(result.found) };
      case 'different':
        throw new EscrowError(
          'CONTENT_CONFLICT',
          `id ${id} is taken by a transaction with other content; repeat the same request, or make a new id for a new one`,
        );
      case 'refused':
        throw result.error;
    }
  }

  return {
    prepare: (request, trace) =>
      accept(request, trace, (group) => ({
        op: 'prepare',
        checkAfterMs: request.checkAfterMs ?? group.checkPolicy.firstDelayMs,
      })),
    send: (request, trace) => accept(request, trace, () => sendOf(request)),
    async decide(verdict) {
      const { id, decision } = verdict;
      const result = await verdicts.call(verdict);
      observer.count('verdicts', { decision, result: result.kind });
      switch (result.kind) {
        case 'moved':
          return { id, state: decision === 'commit' ? 'committed' : 'rolledBack' };
        case 'decided':
          return explain(verdict, result.found, observer);
        case 'refused':
          throw dataRefused(id, result.refusal);
        case 'unknown':
          throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
      }
    },
    async idle() {
      await Promise.all([inserts.idle(), verdicts.idle()]);
    },
  };
}

function byLease(sent: readonly NewTransaction[]): Map<number, string[]> {
  const byMs = new Map<number, string[]>();
  for (const { id, kind } of sent) {
    if (kind.op !== 'send') continue;
    const ids = byMs.get(kind.leaseMs);
    if (ids === undefined) byMs.set(kind.leaseMs, [id]);
    else ids.push(id);
  }
  return byMs;
}

function answerOf(found: Found): TransactionAnswer {
  const { id, decision } = found;
  if (found.kind === 'row') {
    return { id, state: found.state.state, ...(decision === undefined ? {} : { decision }) };
  }
  const state = found.decision.decision === 'commit' ? 'forwarded' : 'rolledBack';
  return { id, state, decision: found.decision, purged: true };
}

/** A verdict that moved nothing: a repeat is a success, the other decision is refused. */
function explain(
  { id, decision }: Verdict,
  found: Found,
  observer: Pick<Observer, 'count' | 'info'>,
): TransactionAnswer {
  if (found.kind === 'row') {
    const outcome =
      decision === 'commit' ? commit(found.state, found.messageCount, 0) : rollback(found.state, 0);
    if (outcome.kind === 'keep') return answerOf(found);
  } else if (found.decision.decision === decision) {
    return answerOf(found);
  }
  observer.count('verdictConflicts', { decision });
  const record = found.decision;
  const state = answerOf(found).state;
  observer.info('verdict refused', { id, decision, state, decidedBy: record?.by });
  throw new EscrowError(
    'STATE_CONFLICT',
    `transaction ${id} is ${state}${record === undefined ? '' : ` (${record.decision} by ${record.by})`} ` +
      `and a decision never reverses; ${decision} is refused`,
    {
      details: {
        id,
        state,
        ...(record === undefined ? {} : { decision: record }),
        ...(found.kind === 'tombstone' ? { purged: true } : {}),
      },
    },
  );
}
