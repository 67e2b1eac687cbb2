import { randomBytes } from 'node:crypto';
import { type Filled, fill, openNumbers } from '../domain/open-messages.js';
import { type OrderedMessage, orderedOf } from '../domain/ordering.js';
import type { Verdict, VerdictResult } from '../domain/ports.js';
import { allMessages, byProducer, type Message } from '../domain/transaction.js';
import { find } from './intake-operations.js';
import { joinLines, openKeys } from './ordering-operations.js';
import {
  type Database,
  type Dialect,
  idBytes,
  idText,
  NEVER,
  RowRefused,
  type Sql,
} from './sql.js';

/**
 * Guarded: only a row without a decision moves, whoever asks. `verdict_token` is random per flush
 * and never overwritten, so that after a short count, or a lost reply, the row itself tells who
 * moved it. Who decided is written when it was not the producer.
 */
const decideUndecided = (byId: string, set: string, where: string) => `
  update escrow_transaction ${byId}
  set ${set}, verdict_token = ?, parked_reason = 'none', parked_at = ${NEVER}
  where ${where} and decision = 'none' and state in ('prepared', 'parked')`;

const COMMIT = (now: string) =>
  `state = 'committed', decision = 'commit', decided_at = ${now}, due_at = ${now} + ?`;

/**
 * A row whose commit takes more than the decision has no message pending until then: data that
 * prepare left open, or the sequences of ordered messages.
 */
const TAKES_NO_MORE = 'pending > 0';

const DECIDED_BY = 'decided_by = ?, decision_reason = ?';
const COMMIT_WITH_DATA = (now: string) =>
  `${COMMIT(now)}, messages = ?, bytes = ?, pending = ?, ${DECIDED_BY}`;
const COMMIT_WITH_ALL_PENDING = (now: string) =>
  `${COMMIT(now)}, pending = (1 << message_count) - 1, ${DECIDED_BY}`;

const ROLL_BACK = (now: string) =>
  `state = 'rolledBack', decision = 'rollback', decided_at = ${now}, due_at = ${NEVER},
   finished_at = ${now}, settled_at = ${now}`;

const shareAnUpdate = (a: Verdict, b: Verdict): boolean =>
  a.decision === b.decision &&
  a.decidedBy.by === b.decidedBy.by &&
  a.decidedBy.reason === b.decidedBy.reason &&
  a.producerGroup === b.producerGroup;

/** Verdicts that one UPDATE can carry: all but the id is the same. There are few kinds at a time. */
function partition(batch: readonly Verdict[]): Verdict[][] {
  const parts: Verdict[][] = [];
  for (const verdict of batch) {
    const part = parts.find(([first]) => first !== undefined && shareAnUpdate(first, verdict));
    if (part === undefined) parts.push([verdict]);
    else part.push(verdict);
  }
  return parts;
}

/** Moves what it can of one part; resolves with how many rows moved. */
async function applyPart(
  database: Database,
  part: readonly Verdict[],
  { token, leaseMs }: { token: Buffer; leaseMs: number },
): Promise<number> {
  const [first] = part;
  if (first === undefined) return 0;
  const { decision, decidedBy, producerGroup } = first;
  const { now, byId, inIds } = database.dialect;
  const isPlain = decidedBy.by === byProducer.by && decidedBy.reason === undefined;
  const ids = inIds(part.map(({ id }) => id));
  const set = decision === 'commit' ? COMMIT(now) : ROLL_BACK(now);
  const mine = producerGroup === undefined ? '' : ' and producer_group = ?';
  const whole = decision === 'commit' ? ` and ${TAKES_NO_MORE}` : '';
  const text = decideUndecided(
    byId,
    isPlain ? set : `${set}, ${DECIDED_BY}`,
    `id ${ids.list}${mine}${whole}`,
  );
  return database.run(text, [
    ...(decision === 'commit' ? [leaseMs] : []),
    ...(isPlain ? [] : [decidedBy.by, decidedBy.reason ?? null]),
    token,
    ...ids.values,
    ...(producerGroup === undefined ? [] : [producerGroup]),
  ]);
}

interface UndecidedRow {
  id: Uint8Array;
  producer_group: string;
  message_count: number;
  messages: string;
}

/** A commit that moves its row only together with more than the decision. */
interface LargeCommit {
  verdict: Verdict;
  messageCount: number;
  /** The messages with the data that the commit brings; absent when prepare left nothing open. */
  filled?: { messagesJson: string; bytes: number };
  /** What takes a place in the line of its key. */
  ordered: OrderedMessage[];
}

/**
 * What these commits take, read without a lock: as long as a row has no decision, its messages do
 * not change. Not among them is what has a decision, or belongs to another group.
 */
async function readLarge(
  database: Database,
  verdicts: readonly Verdict[],
): Promise<{ commits: LargeCommit[]; refused: Map<string, VerdictResult> }> {
  const { list, values } = database.dialect.inIds(verdicts.map(({ id }) => id));
  const rows = await database.all<UndecidedRow>(
    `select id, producer_group, message_count, messages
     from escrow_transaction ${database.dialect.byId}
     where id ${list} and decision = 'none'`,
    values,
  );
  const there = new Map(rows.map((row) => [idText(row.id), row]));
  const commits: LargeCommit[] = [];
  const refused = new Map<string, VerdictResult>();
  for (const verdict of verdicts) {
    const { id, producerGroup, supplied } = verdict;
    const row = there.get(id);
    if (row === undefined) continue;
    if (producerGroup !== undefined && row.producer_group !== producerGroup) continue;
    const messages = JSON.parse(row.messages) as Message[];
    const filled = supplied === undefined ? unfilled(messages) : fill(messages, supplied);
    if (filled?.kind === 'refused') refused.set(id, filled);
    else {
      const ordered = orderedOf(messages);
      const data = filled === undefined ? {} : { filled };
      commits.push({ verdict, messageCount: row.message_count, ordered, ...data });
    }
  }
  return { commits, refused };
}

/** A commit without data is refused where a message waits for it. */
function unfilled(messages: readonly Message[]): Extract<Filled, { kind: 'refused' }> | undefined {
  const numbers = openNumbers(messages);
  if (numbers.length === 0) return undefined;
  return { kind: 'refused', refusal: { kind: 'missing', numbers } };
}

/** Locks those that have no decision yet; only what runs in this database transaction moves them. */
async function lockUndecided(
  sql: Sql,
  { byId, inIds, forUpdate }: Dialect,
  ids: readonly string[],
): Promise<Set<string>> {
  const { list, values } = inIds(ids);
  const rows = await sql.all<{ id: Uint8Array }>(
    `select id from escrow_transaction ${byId}
     where id ${list} and decision = 'none' and state in ('prepared', 'parked') ${forUpdate}`,
    values,
  );
  return new Set(rows.map(({ id }) => idText(id)));
}

/** One UPDATE for all that only get sequences, and one for each that brings data. */
async function moveLarge(
  sql: Sql,
  { now, byId, inIds }: Dialect,
  { commits, token, leaseMs }: { commits: readonly LargeCommit[]; token: Buffer; leaseMs: number },
): Promise<void> {
  const whole = commits.filter(({ filled }) => filled === undefined);
  for (const part of partition(whole.map(({ verdict }) => verdict))) {
    const { list, values } = inIds(part.map(({ id }) => id));
    const text = decideUndecided(byId, COMMIT_WITH_ALL_PENDING(now), `id ${list}`);
    await sql.run(text, [leaseMs, ...deciderOf(part[0]), token, ...values]);
  }
  const text = decideUndecided(byId, COMMIT_WITH_DATA(now), 'id = ?');
  for (const { verdict, filled, messageCount } of commits) {
    if (filled === undefined) continue;
    const { messagesJson, bytes } = filled;
    const data = [messagesJson, bytes, allMessages(messageCount)];
    await sql.run(text, [leaseMs, ...data, ...deciderOf(verdict), token, idBytes(verdict.id)]);
  }
}

/** As the columns have it; null stands for the producer. */
function deciderOf(verdict: Verdict | undefined): [string | null, string | null] {
  const { by, reason = null } = verdict?.decidedBy ?? byProducer;
  return [by === byProducer.by && reason === null ? null : by, reason];
}

/**
 * Commits whose rows take data or sequences along: the decision and all of it are one durable step.
 * Run again after a lost reply, it finds the rows decided and gives no second sequence.
 *
 * Keys are locked before rows, as everywhere: see ordering-operations.ts.
 *
 * @returns the ids that moved
 */
function applyLarge(
  database: Database,
  commits: readonly LargeCommit[],
  { token, leaseMs }: { token: Buffer; leaseMs: number },
): Promise<Set<string>> {
  const { dialect } = database;
  const ordered = commits.flatMap((commit) => commit.ordered);
  return database.transaction(async (sql) => {
    const keys = ordered.length === 0 ? undefined : await openKeys(sql, dialect, ordered);
    const ids = commits.map(({ verdict }) => verdict.id);
    const moving = await lockUndecided(sql, dialect, ids);
    const mine = commits.filter(({ verdict }) => moving.has(verdict.id));
    await moveLarge(sql, dialect, { commits: mine, token, leaseMs });
    const joining = mine.map((commit) => ({ id: commit.verdict.id, ordered: commit.ordered }));
    if (keys !== undefined) await joinLines(sql, dialect, { keys, joining });
    return moving;
  });
}

interface LookedUp {
  results: Map<string, VerdictResult>;
  /** Commits that found no decision, because their rows take more than that. */
  large: Verdict[];
}

/** Where the database does not take the data of one of them, each goes alone, in the same order. */
async function applyApart(
  database: Database,
  commits: readonly LargeCommit[],
  update: { token: Buffer; leaseMs: number; results: Map<string, VerdictResult> },
): Promise<void> {
  try {
    const moved = await applyLarge(database, commits, update);
    for (const id of moved) update.results.set(id, { kind: 'moved' });
  } catch (error) {
    if (!(error instanceof RowRefused)) throw error;
    const [only] = commits;
    if (commits.length > 1) {
      for (const commit of commits) await applyApart(database, [commit], update);
    } else if (only !== undefined) {
      const refusal = { kind: 'notStorable', why: error.why, detail: error.message } as const;
      update.results.set(only.verdict.id, { kind: 'refused', refusal });
    }
  }
}

/** When a part moved fewer rows than asked for, the rows tell what became of each verdict. */
async function lookUp(
  database: Database,
  part: readonly Verdict[],
  token: Buffer,
): Promise<LookedUp> {
  const ids = part.map(({ id }) => id);
  const { list, values } = database.dialect.inIds(ids);
  const mine = await database.all<{ id: Uint8Array }>(
    `select id from escrow_transaction where id ${list} and verdict_token = ?`,
    [...values, token],
  );
  const moved = new Set(mine.map(({ id }) => idText(id)));
  const found = await find(database, ids);
  const results = new Map<string, VerdictResult>();
  const large: Verdict[] = [];
  for (const verdict of part) {
    const { id, decision, producerGroup } = verdict;
    const there = found.get(id);
    const foreign = producerGroup !== undefined && there?.producerGroup !== producerGroup;
    const takesMore = there?.kind === 'row' && there.takesMore === true;
    if (takesMore && decision === 'commit' && !foreign) large.push(verdict);
    // Without a decision it was prepared after the UPDATE had looked for it.
    if (there?.decision === undefined || foreign) results.set(id, { kind: 'unknown' });
    else results.set(id, moved.has(id) ? { kind: 'moved' } : { kind: 'decided', found: there });
  }
  return { results, large };
}

/** What became of commits that take more than the decision. */
async function decideLarge(
  database: Database,
  verdicts: readonly Verdict[],
  update: { token: Buffer; leaseMs: number },
): Promise<Map<string, VerdictResult>> {
  const { commits, refused: results } = await readLarge(database, verdicts);
  if (commits.length > 0) await applyApart(database, commits, { ...update, results });
  const rest = verdicts.filter(({ id }) => !results.has(id));
  if (rest.length === 0) return results;
  const lookedUp = await lookUp(database, rest, update.token);
  for (const [id, result] of lookedUp.results) results.set(id, result);
  return results;
}

export async function decide(
  database: Database,
  batch: readonly Verdict[],
  leaseMs: number,
): Promise<VerdictResult[]> {
  const token = randomBytes(8);
  const results = new Map<string, VerdictResult>();
  const withData = batch.filter(({ supplied }) => supplied !== undefined);
  const plain = withData.length === 0 ? batch : batch.filter((item) => item.supplied === undefined);
  const large = new Set(withData);
  for (const part of partition(plain)) {
    const moved = await applyPart(database, part, { token, leaseMs });
    if (moved === part.length) for (const { id } of part) results.set(id, { kind: 'moved' });
    else {
      const lookedUp = await lookUp(database, part, token);
      for (const [id, result] of lookedUp.results) results.set(id, result);
      for (const verdict of lookedUp.large) large.add(verdict);
    }
  }
  if (large.size > 0) {
    // Sequences are given in the order in which the commits came.
    const inOrder = batch.filter((verdict) => large.has(verdict));
    const answers = await decideLarge(database, inOrder, { token, leaseMs });
    for (const [id, result] of answers) results.set(id, result);
  }
  return batch.map(({ id }) => results.get(id) ?? { kind: 'unknown' });
}
