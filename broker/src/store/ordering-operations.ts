import type { OrderedMessage, Place } from '../domain/ordering.js';
import { hasMessage, type MessageMask } from '../domain/transaction.js';
import { type Dialect, idBytes, idText, marks, type Sql } from './sql.js';

/*
 * The lines of ordering keys. Whoever adds to a line or takes from it first locks the row of its
 * key, before any row of a transaction, and several keys in the order of their ids: so nobody waits
 * in a circle, and no wake-up is lost. Of a commit and a confirm on one key, the second to lock it
 * sees what the first one did: either the commit finds the line empty and its message at the head,
 * or the confirm finds the new message there and lets its transaction go on.
 */

export const hex = (keyId: Uint8Array): string =>
  Buffer.from(keyId.buffer, keyId.byteOffset, keyId.byteLength).toString('hex');

/** Each once, in the order in which keys are locked. */
export function distinctKeys(keyIds: readonly Buffer[]): Buffer[] {
  const byHex = new Map(keyIds.map((keyId) => [hex(keyId), keyId]));
  return [...byHex.values()].sort(Buffer.compare);
}

/** Filled up to a power of two by its last item, so that lists of all lengths make few texts. */
export function inKeys(keyIds: readonly Buffer[]): { list: string; values: Buffer[] } {
  const values = [...keyIds];
  const length = 2 ** Math.ceil(Math.log2(values.length));
  const last = values.at(-1);
  while (last !== undefined && values.length < length) values.push(last);
  return { list: `in (${marks(length)})`, values };
}

/** MariaDB makes a table of a list of a thousand or more, and no longer goes by the index. */
const KEYS_IN_LIST_MAX = 512;

function pieces<T>(items: readonly T[]): T[][] {
  const parts: T[][] = [];
  for (let start = 0; start < items.length; start += KEYS_IN_LIST_MAX) {
    parts.push(items.slice(start, start + KEYS_IN_LIST_MAX));
  }
  return parts;
}

/** Keys that this database transaction holds, by the hex of their ids. */
export type LockedKeys = ReadonlyMap<string, { keyId: Buffer; lastSequence: number }>;

async function lockKeys(
  sql: Sql,
  { byKey, forUpdate }: Dialect,
  keyIds: readonly Buffer[],
): Promise<LockedKeys> {
  const locked = new Map<string, { keyId: Buffer; lastSequence: number }>();
  for (const some of pieces(distinctKeys(keyIds))) {
    const { list, values } = inKeys(some);
    const rows = await sql.all<{ key_id: Uint8Array; last_sequence: number }>(
      `select key_id, last_sequence from escrow_ordering_key ${byKey}
       where key_id ${list} order by key_id ${forUpdate}`,
      values,
    );
    for (const { key_id, last_sequence } of rows) {
      locked.set(hex(key_id), { keyId: Buffer.from(key_id), lastSequence: last_sequence });
    }
  }
  return locked;
}

/** Locks the keys of messages that are to be committed, and makes those that there are not yet. */
export async function openKeys(
  sql: Sql,
  dialect: Dialect,
  ordered: readonly OrderedMessage[],
): Promise<LockedKeys> {
  const byHex = new Map(ordered.map((message) => [hex(message.keyId), message]));
  const keyIds = distinctKeys(ordered.map(({ keyId }) => keyId));
  await sql.insertRows({
    table: 'escrow_ordering_key',
    columns: ['key_id', 'topic', 'ordering_key', 'last_sequence'],
    rows: keyIds.flatMap((keyId) => {
      const message = byHex.get(hex(keyId));
      return message === undefined
        ? []
        : [[keyId, message.topic, Buffer.from(message.orderingKey), 0]];
    }),
    onDuplicate: 'ignore',
  });
  return lockKeys(sql, dialect, keyIds);
}

/** A transaction that this database transaction commits, and what of it takes a place. */
export interface Joining {
  id: string;
  ordered: readonly OrderedMessage[];
}

/**
 * Gives each message the next sequence of its key, transactions and messages in the order given.
 * In the database transaction that commits them: rolled back together, no sequence is left out.
 *
 * @param keys locked by `openKeys`, in this database transaction
 */
export async function joinLines(
  sql: Sql,
  dialect: Dialect,
  { keys, joining }: { keys: LockedKeys; joining: readonly Joining[] },
): Promise<void> {
  const added = new Map<string, number>();
  const rows = joining.flatMap(({ id, ordered }) =>
    ordered.map(({ number, keyId }) => {
      const key = keys.get(hex(keyId));
      if (key === undefined) throw new Error(`the key of message ${number} of ${id} is not locked`);
      const place = (added.get(hex(keyId)) ?? 0) + 1;
      added.set(hex(keyId), place);
      return [keyId, key.lastSequence + place, idBytes(id), number] as const;
    }),
  );
  await sql.insertRows({
    table: 'escrow_ordered_message',
    columns: ['key_id', 'sequence', 'transaction_id', 'message_number'],
    rows,
    onDuplicate: 'fail',
  });
  await countUp(sql, dialect, { keys, added });
}

/** One UPDATE for all keys that grow by the same number; most often that is one by each. */
async function countUp(
  sql: Sql,
  { byKey }: Dialect,
  { keys, added }: { keys: LockedKeys; added: ReadonlyMap<string, number> },
): Promise<void> {
  const byCount = new Map<number, Buffer[]>();
  for (const [key, count] of added) {
    const keyId = keys.get(key)?.keyId;
    if (keyId === undefined) continue;
    const same = byCount.get(count);
    if (same === undefined) byCount.set(count, [keyId]);
    else same.push(keyId);
  }
  for (const [count, keyIds] of byCount) {
    for (const some of pieces(keyIds)) {
      const { list, values } = inKeys(some);
      await sql.run(
        `update escrow_ordering_key ${byKey} set last_sequence = last_sequence + ?
         where key_id ${list}`,
        [count, ...values],
      );
    }
  }
}

/**
 * The first sequence in the line of a key: one look at the end of an index. `min`, or `not exists`
 * with a lower sequence, read the whole line on one database or another.
 */
export const HEAD = (column: string, keyId: string) => `(
  select head.${column} from escrow_ordered_message head
  where head.key_id = ${keyId} order by head.sequence limit 1)`;

interface PlaceRow {
  transaction_id: Uint8Array;
  message_number: number;
  key_id: Uint8Array;
  sequence: number;
  head_sequence: number;
}

/** Where the messages of these transactions stand that are not confirmed yet. */
export async function placesOf(
  sql: Sql,
  { inIds }: Dialect,
  ids: readonly string[],
): Promise<Map<string, Place[]>> {
  const { list, values } = inIds(ids);
  const rows = await sql.all<PlaceRow>(
    `select transaction_id, message_number, key_id, sequence,
            ${HEAD('sequence', 'place.key_id')} as head_sequence
     from escrow_ordered_message place where transaction_id ${list}`,
    values,
  );
  const places = new Map<string, Place[]>(ids.map((id) => [id, []]));
  for (const { transaction_id, message_number, key_id, sequence, head_sequence } of rows) {
    places.get(idText(transaction_id))?.push({
      number: message_number,
      keyId: Buffer.from(key_id),
      sequence,
      isHead: sequence === head_sequence,
    });
  }
  return places;
}

/** Locks the keys of these places, so that nobody joins or leaves their lines meanwhile. */
export async function lockLines(
  sql: Sql,
  dialect: Dialect,
  places: readonly Place[],
): Promise<void> {
  const keyIds = places.map(({ keyId }) => keyId);
  await lockKeys(sql, dialect, keyIds);
}

/** What became of a transaction with places: confirmed, dropped or cancelled messages leave. */
export interface Leaving {
  id: string;
  /** As they were when the round began. */
  places: readonly Place[];
  /** Those that leave. */
  done: MessageMask;
}

const leaves = ({ done }: Leaving, { number }: Place): boolean => hasMessage(done, number);

async function deletePlaces(
  sql: Sql,
  { inIds }: Dialect,
  leaving: readonly Leaving[],
): Promise<void> {
  const isWhole = (one: Leaving) => one.places.every((place) => leaves(one, place));
  const whole = leaving.filter(isWhole).map(({ id }) => id);
  if (whole.length > 0) {
    const { list, values } = inIds(whole);
    await sql.run(`delete from escrow_ordered_message where transaction_id ${list}`, values);
  }
  for (const one of leaving) {
    if (isWhole(one)) continue;
    for (const { number } of one.places.filter((place) => leaves(one, place))) {
      await sql.run(
        'delete from escrow_ordered_message where transaction_id = ? and message_number = ?',
        [idBytes(one.id), number],
      );
    }
  }
}

/**
 * Takes messages out of their lines, and lets go on what stands at the head now: the transactions
 * of the messages behind them, and of those that leave, whose other messages were waiting. A parked
 * transaction stays parked, and goes on holding up its keys.
 *
 * @param leaving transactions whose rows have moved; their keys are locked by `lockLines`
 * @param leaseMs what may go on is leased for so long; 0: it is due at once
 * @returns the transactions that may go on, and parked ones that may not
 */
export async function leaveLines(
  sql: Sql,
  dialect: Dialect,
  { leaving, leaseMs }: { leaving: readonly Leaving[]; leaseMs: number },
): Promise<string[]> {
  await deletePlaces(sql, dialect, leaving);
  /** The lowest sequence that leaves each key, and the transactions that waited themselves. */
  const left = new Map<string, number>();
  const waiting = new Map<string, Set<string>>();
  for (const one of leaving) {
    for (const place of one.places) {
      const key = hex(place.keyId);
      if (leaves(one, place)) {
        left.set(key, Math.min(left.get(key) ?? place.sequence, place.sequence));
      } else if (!place.isHead) waiting.set(key, (waiting.get(key) ?? new Set()).add(one.id));
    }
  }
  const keyIds = leaving.flatMap(({ places }) => places.map(({ keyId }) => keyId));
  const heads = await headsOf(sql, dialect, keyIds);
  const due = new Set<string>();
  for (const [key, { id, sequence }] of heads) {
    // What left from the middle of a line had a head before it, which is in somebody's hand.
    const isNew = (left.get(key) ?? sequence) < sequence;
    if (isNew || waiting.get(key)?.has(id)) due.add(id);
  }
  const ids = [...due];
  await wake(sql, dialect, { ids, leaseMs });
  return ids;
}

/** The transaction at the head of each key that has any. */
async function headsOf(
  sql: Sql,
  { byKey }: Dialect,
  keyIds: readonly Buffer[],
): Promise<Map<string, { id: string; sequence: number }>> {
  const heads = new Map<string, { id: string; sequence: number }>();
  for (const some of pieces(distinctKeys(keyIds))) {
    const { list, values } = inKeys(some);
    const rows = await sql.all<{ key_id: Uint8Array; id: Uint8Array | null; sequence: number }>(
      `select key_id, ${HEAD('transaction_id', 'line.key_id')} as id,
              ${HEAD('sequence', 'line.key_id')} as sequence
       from escrow_ordering_key line ${byKey} where key_id ${list}`,
      values,
    );
    for (const { key_id, id, sequence } of rows) {
      if (id !== null) heads.set(hex(key_id), { id: idText(id), sequence });
    }
  }
  return heads;
}

async function wake(
  sql: Sql,
  { now, byId, inIds }: Dialect,
  { ids, leaseMs }: { ids: readonly string[]; leaseMs: number },
): Promise<void> {
  for (const some of pieces(ids)) {
    const { list, values } = inIds(some);
    await sql.run(
      `update escrow_transaction ${byId} set due_at = ${now} + ?
       where id ${list} and state = 'committed'`,
      [leaseMs, ...values],
    );
  }
}

/** The places of one transaction; nobody joins or leaves their lines from here on. */
export async function lockLinesOf(sql: Sql, dialect: Dialect, id: string): Promise<Place[]> {
  const places = (await placesOf(sql, dialect, [id])).get(id) ?? [];
  await lockLines(sql, dialect, places);
  return places;
}
