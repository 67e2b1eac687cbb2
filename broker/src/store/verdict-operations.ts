import { randomBytes } from 'node:crypto';
import { fill, openNumbers } from '../domain/open-messages.js';
import type { Verdict, VerdictResult } from '../domain/ports.js';
import { allMessages, byProducer, type Message } from '../domain/transaction.js';
import { find } from './intake-operations.js';
import { type Database, idBytes, idText, NEVER, type Sql } from './sql.js';

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

/** A row whose messages wait for their data has none pending, and moves only together with it. */
const ALL_HERE = 'pending > 0';

/** The data and the decision are one durable step. */
const COMMIT_WITH_DATA = (now: string) =>
  `${COMMIT(now)}, messages = ?, bytes = ?, pending = ?, decided_by = ?, decision_reason = ?`;

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
  const whole = decision === 'commit' ? ` and ${ALL_HERE}` : '';
  const text = decideUndecided(
    byId,
    isPlain ? set : `${set}, decided_by = ?, decision_reason = ?`,
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

interface OpenRow {
  id: Uint8Array;
  producer_group: string;
  message_count: number;
  messages: string;
}

/** What these hold while they have no decision; by then their messages do not change. */
async function undecided(
  { dialect }: Database,
  sql: Sql,
  ids: readonly string[],
): Promise<Map<string, { row: OpenRow; messages: Message[] }>> {
  const { list, values } = dialect.inIds(ids);
  const rows = await sql.all<OpenRow>(
    `select id, producer_group, message_count, messages from escrow_transaction ${dialect.byId}
     where id ${list} and decision = 'none'`,
    values,
  );
  return new Map(
    rows.map((row) => [idText(row.id), { row, messages: JSON.parse(row.messages) as Message[] }]),
  );
}

/**
 * Commits that bring data, one UPDATE each in one database transaction. Resolves with those that
 * moved and those that were refused; of all others `lookUp` tells what became of them.
 */
function applyWithData(
  database: Database,
  part: readonly Verdict[],
  { token, leaseMs }: { token: Buffer; leaseMs: number },
): Promise<Map<string, VerdictResult>> {
  const { now, byId } = database.dialect;
  const text = decideUndecided(byId, COMMIT_WITH_DATA(now), 'id = ?');
  return database.transaction(async (sql) => {
    const results = new Map<string, VerdictResult>();
    const there = await undecided(
      database,
      sql,
      part.map(({ id }) => id),
    );
    for (const { id, supplied, producerGroup, decidedBy } of part) {
      const found = there.get(id);
      if (found === undefined || supplied === undefined) continue;
      if (producerGroup !== undefined && found.row.producer_group !== producerGroup) continue;
      const filled = fill(found.messages, supplied);
      if (filled.kind === 'refused') {
        results.set(id, filled);
        continue;
      }
      const { by, reason = null } = decidedBy;
      const moved = await sql.run(text, [
        leaseMs,
        filled.messagesJson,
        filled.bytes,
        allMessages(found.row.message_count),
        by === byProducer.by && reason === null ? null : by,
        reason,
        token,
        idBytes(id),
      ]);
      if (moved === 1) results.set(id, { kind: 'moved' });
    }
    return results;
  });
}

/** When a part moved fewer rows than asked for, the rows tell what became of each verdict. */
async function lookUp(
  database: Database,
  part: readonly Verdict[],
  token: Buffer,
): Promise<Map<string, VerdictResult>> {
  const ids = part.map(({ id }) => id);
  const { list, values } = database.dialect.inIds(ids);
  const mine = await database.all<{ id: Uint8Array }>(
    `select id from escrow_transaction where id ${list} and verdict_token = ?`,
    [...values, token],
  );
  const moved = new Set(mine.map(({ id }) => idText(id)));
  const found = await find(database, ids);
  const results = new Map<string, VerdictResult>();
  const waiting: string[] = [];
  for (const { id, decision, producerGroup, supplied } of part) {
    const there = found.get(id);
    const foreign = producerGroup !== undefined && there?.producerGroup !== producerGroup;
    const lacksData = there?.kind === 'row' && there.open === true && supplied === undefined;
    if (lacksData && decision === 'commit' && !foreign) waiting.push(id);
    // Without a decision it was prepared after the UPDATE had looked for it.
    if (there?.decision === undefined || foreign) results.set(id, { kind: 'unknown' });
    else results.set(id, moved.has(id) ? { kind: 'moved' } : { kind: 'decided', found: there });
  }
  if (waiting.length === 0) return results;
  for (const [id, { messages }] of await undecided(database, database, waiting)) {
    const numbers = openNumbers(messages);
    results.set(id, { kind: 'refused', refusal: { kind: 'missing', numbers } });
  }
  return results;
}

/** What became of commits that bring data. */
async function decideWithData(
  database: Database,
  part: readonly Verdict[],
  update: { token: Buffer; leaseMs: number },
): Promise<Map<string, VerdictResult>> {
  const results = await applyWithData(database, part, update);
  const rest = part.filter(({ id }) => !results.has(id));
  if (rest.length === 0) return results;
  for (const [id, result] of await lookUp(database, rest, update.token)) results.set(id, result);
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
  for (const part of partition(plain)) {
    const moved = await applyPart(database, part, { token, leaseMs });
    if (moved === part.length) for (const { id } of part) results.set(id, { kind: 'moved' });
    else for (const [id, result] of await lookUp(database, part, token)) results.set(id, result);
  }
  if (withData.length > 0) {
    const answers = await decideWithData(database, withData, { token, leaseMs });
    for (const [id, result] of answers) results.set(id, result);
  }
  return batch.map(({ id }) => results.get(id) ?? { kind: 'unknown' });
}
