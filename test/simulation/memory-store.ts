import type { DecisionRecord } from '@escrowmq/protocol';
import { commit, mayPurge, type Outcome, rollback } from '../../broker/src/domain/decide.js';
import type {
  CheckToSave,
  DueCheck,
  ForwardingToSave,
  Found,
  Inserted,
  ProducerGroup,
  Store,
  Verdict,
  VerdictResult,
} from '../../broker/src/domain/ports.js';
import {
  allMessages,
  type Committed,
  type NewTransaction,
  type State,
  type StoreTime,
  withoutMessages,
} from '../../broker/src/domain/transaction.js';

/**
 * The broker's store in memory: what the engine's main job needs of it. Each operation happens at once
 * and whole, as a database transaction does; when it happens, and whether its answer arrives, is the
 * business of the port around it. Its verdicts ask domain/decide.ts, its other guards repeat those of
 * the SQL, and the contract of every state × every event holds them to it.
 */
export interface Row extends Committed {
  hash: Buffer;
  state: State;
  decision?: DecisionRecord;
  messageCount: number;
  unansweredSince?: StoreTime;
  alerted: boolean;
}

/** What the engine's main job asks of a store. */
export type StorePort = Pick<
  Store,
  | 'now'
  | 'insert'
  | 'decide'
  | 'find'
  | 'claimDueChecks'
  | 'saveChecks'
  | 'releaseChecks'
  | 'claimDueForwards'
  | 'readCommitted'
  | 'saveForwards'
  | 'postponeForwards'
  | 'releaseForwards'
  | 'appendHistory'
  | 'findGroup'
>;

/** The operations of `Store` as functions that have no need to wait. */
type AtOnce<T> = {
  [Name in keyof T]: T[Name] extends (...given: infer Given) => Promise<infer Result>
    ? (...given: Given) => Result
    : never;
};

/** And what only the contract of every state × every event asks for. */
export type MemoryStore = AtOnce<StorePort & Pick<Store, 'resolve' | 'purgeFinished'>> & {
  readonly rows: ReadonlyMap<string, Row>;
};

export interface MemoryStoreOptions {
  now(): StoreTime;
  groups: readonly ProducerGroup[];
  /** Told of each change of a state, before it is made. */
  onMove?(row: Row, to: State): void;
  /** False plants a mistake: a verdict moves a row whatever was decided before. @default true */
  guardsVerdicts?: boolean;
}

export function createMemoryStore(options: MemoryStoreOptions): MemoryStore {
  const { now, onMove = () => {}, guardsVerdicts = true } = options;
  const rows = new Map<string, Row>();
  const tombstones = new Map<string, Found>();

  function move(row: Row, to: State): void {
    onMove(row, to);
    row.state = to;
    if (to.state !== 'committed') return;
    row.pending = to.pending;
    row.attempts = to.attempts;
  }

  function insertOne(transaction: NewTransaction): Inserted {
    const { id, contentHash, kind, messages } = transaction;
    const there = rows.get(id);
    if (there !== undefined) {
      const isSame = there.hash.equals(contentHash);
      return isSame ? { kind: 'repeated', found: foundRow(there) } : { kind: 'different' };
    }
    const at = now();
    const pending = allMessages(messages.length);
    const { messagesJson, mayBePurged, contentHash: hash, kind: _, ...kept } = transaction;
    // As a database gives it back: nobody shares an object with what is stored.
    const stored = JSON.parse(messagesJson) as Row['messages'];
    const state: State =
      kind.op === 'prepare'
        ? { state: 'prepared', checks: 0, unanswered: 0, dueAt: at + kind.checkAfterMs }
        : { state: 'committed', pending, attempts: 0, dueAt: at + kind.leaseMs };
    rows.set(id, {
      ...kept,
      messages: stored,
      hash,
      state,
      ...(kind.op === 'send' ? { decision: { decision: 'commit', at, by: 'producer' } } : {}),
      decidedAt: at,
      pending,
      attempts: 0,
      messageCount: messages.length,
      alerted: false,
    });
    return { kind: 'created' };
  }

  function outcomeOf(row: Row, verdict: Verdict, at: StoreTime): Outcome {
    const { state } = row;
    const asked = (current: State) =>
      verdict.decision === 'commit' ? commit(current, row.messageCount, at) : rollback(current, at);
    if (guardsVerdicts) return asked(state);
    return asked({ state: 'prepared', checks: 0, unanswered: 0, dueAt: at });
  }

  function decideOne(verdict: Verdict, leaseMs: number): VerdictResult {
    const { id, decision, decidedBy, producerGroup } = verdict;
    const row = rows.get(id);
    if (row === undefined) return { kind: 'unknown' };
    if (producerGroup !== undefined && row.producerGroup !== producerGroup) {
      return { kind: 'unknown' };
    }
    const at = now();
    const outcome = outcomeOf(row, verdict, at);
    if (outcome.kind !== 'move') return { kind: 'decided', found: foundRow(row) };
    const { to } = outcome;
    move(row, to.state === 'committed' ? { ...to, dueAt: at + leaseMs } : to);
    row.decision = { decision, at, ...decidedBy };
    row.decidedAt = at;
    return { kind: 'moved' };
  }

  function saveCheck({ id, from, to, unansweredSince, alerted }: CheckToSave): void {
    const row = rows.get(id);
    if (row?.state.state !== 'prepared') return;
    if (row.state.checks !== from.checks || row.state.unanswered !== from.unanswered) return;
    move(row, to);
    row.alerted = alerted;
    delete row.unansweredSince;
    if (unansweredSince !== undefined) row.unansweredSince = unansweredSince;
  }

  function saveForward({ id, done, to, onlyWaits = false }: ForwardingToSave): void {
    const row = rows.get(id);
    if (row?.state.state !== 'committed') return;
    const pending = withoutMessages(row.pending, done);
    const attempts = row.attempts + (onlyWaits ? 0 : 1);
    if (pending === 0) move(row, { state: 'forwarded', forwardedAt: now() });
    else if (to.state === 'committed') move(row, { ...to, pending, attempts });
    else if (to.state === 'parked' && to.reason === 'undeliverable') move(row, { ...to, pending });
  }

  function due(state: 'prepared' | 'committed', limit: number): Row[] {
    const at = now();
    const found: Row[] = [];
    for (const row of rows.values()) {
      if (row.state.state === state && row.state.dueAt <= at) found.push(row);
    }
    return found.sort((a, b) => dueAtOf(a) - dueAtOf(b)).slice(0, limit);
  }

  function setDue(ids: readonly string[], state: State['state'], at: StoreTime): void {
    for (const id of ids) {
      const row = rows.get(id);
      if (row?.state.state === state && 'dueAt' in row.state)
        row.state = { ...row.state, dueAt: at };
    }
  }

  const committed = (row: Row | undefined): Committed[] =>
    row?.state.state === 'committed' ? [{ ...row }] : [];

  return {
    rows,
    now,
    insert: (batch) => batch.map(insertOne),
    decide: (batch, leaseMs) => batch.map((verdict) => decideOne(verdict, leaseMs)),
    find(ids) {
      const found = new Map<string, Found>();
      for (const id of ids) {
        const row = rows.get(id);
        const there = row === undefined ? tombstones.get(id) : foundRow(row);
        if (there !== undefined) found.set(id, there);
      }
      return found;
    },
    claimDueChecks({ limit, leaseMs, exceptGroups }) {
      const claimed = due('prepared', limit).filter(
        ({ producerGroup }) => !exceptGroups.includes(producerGroup),
      );
      const found = claimed.flatMap(dueCheckOf);
      setDue(
        claimed.map(({ id }) => id),
        'prepared',
        now() + leaseMs,
      );
      return { now: now(), due: found };
    },
    saveChecks: (batch) => batch.forEach(saveCheck),
    releaseChecks: (ids) => setDue(ids, 'prepared', now()),
    claimDueForwards({ limit, leaseMs }) {
      const claimed = due('committed', limit);
      setDue(
        claimed.map(({ id }) => id),
        'committed',
        now() + leaseMs,
      );
      return { now: now(), due: claimed.flatMap(committed), putOff: 0 };
    },
    readCommitted: (ids) => ids.flatMap((id) => committed(rows.get(id))),
    saveForwards(batch) {
      batch.forEach(saveForward);
      return { woken: [] };
    },
    postponeForwards(batch) {
      for (const { id, dueAt } of batch) setDue([id], 'committed', dueAt);
    },
    releaseForwards: (ids) => setDue(ids, 'committed', now()),
    appendHistory() {},
    resolve({ id, from, to }) {
      const row = rows.get(id);
      if (row === undefined || !isSameState(row.state, from)) return false;
      move(row, to);
      return true;
    },
    findGroup: (name) => options.groups.find((group) => group.name === name),
    purgeFinished({ olderThanMs, limit }) {
      const old = [...rows.values()]
        .filter(({ state }) => mayPurge(state) && finishedAt(state) <= now() - olderThanMs)
        .slice(0, limit);
      for (const { id, producerGroup, decision } of old) {
        rows.delete(id);
        if (decision !== undefined) {
          tombstones.set(id, { kind: 'tombstone', id, producerGroup, decision });
        }
      }
      return old.length;
    },
  };
}

const dueAtOf = ({ state }: Row): StoreTime => ('dueAt' in state ? state.dueAt : 0);

function finishedAt(state: State): StoreTime {
  if (state.state === 'forwarded') return state.forwardedAt;
  return state.state === 'rolledBack' ? state.decidedAt : Number.POSITIVE_INFINITY;
}

/** As the SQL compares them: by the name, and by why it is parked. */
const isSameState = (a: State, b: State): boolean =>
  a.state === b.state && ('reason' in a ? a.reason : '') === ('reason' in b ? b.reason : '');

function foundRow({ id, producerGroup, state, messageCount, decision }: Row): Found {
  const found = { kind: 'row', id, producerGroup, state, messageCount } as const;
  return decision === undefined ? found : { ...found, decision };
}

function dueCheckOf(row: Row): DueCheck[] {
  const { id, state, producerGroup, checkContext, businessKeys, preparedAt, alerted } = row;
  if (state.state !== 'prepared') return [];
  return [
    {
      id,
      state,
      producerGroup,
      businessKeys,
      preparedAt,
      alerted,
      ...(checkContext === undefined ? {} : { checkContext }),
      ...(row.unansweredSince === undefined ? {} : { unansweredSince: row.unansweredSince }),
    },
  ];
}
