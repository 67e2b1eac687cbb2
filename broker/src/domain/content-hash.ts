import { hash } from 'node:crypto';
import type { Content, Message } from './transaction.js';

type JsonObject = Readonly<Record<string, unknown>>;

/** True when the keys of every object in it are in order. */
function inOrder(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true;
  if (Array.isArray(value)) return value.every(inOrder);
  let last = '';
  for (const key of Object.keys(value)) {
    if (key < last || !inOrder((value as JsonObject)[key])) return false;
    last = key;
  }
  return true;
}

function reordered(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(reordered);
  // Without a prototype, so that no key means anything but itself.
  const copy: Record<string, unknown> = Object.create(null);
  for (const key of Object.keys(value).sort()) copy[key] = reordered((value as JsonObject)[key]);
  return copy;
}

/**
 * The same value with the keys of its objects in order, so that what means the same has one JSON
 * text. Looked at once and copied once at most, however deep it nests. Data comes from programs,
 * which write their keys in one order, and a look is cheaper than a copy or a text put together by
 * hand: 3 µs for the whole hash of a message of 250 bytes, against 7.7 µs.
 */
const canonical = (value: unknown): unknown => (inOrder(value) ? value : reordered(value));

/** By name, so that each may be there without the others. */
const LATER_FIELDS = [
  'deliverAt',
  'delayMs',
  'orderingKey',
  'compensate',
  'cloudEvents',
  'expects',
] as const satisfies readonly (keyof Message)[];

function valuesOf(message: Message): unknown[] {
  const values = [
    message.topic,
    message.routingKey,
    canonical(message.data),
    message.dataBase64,
    message.contentType,
    canonical(message.headers),
    message.ifUnrouted,
  ];
  // Only where it is given: a prepare stored by a broker that did not know it stays the same. An
  // open message has the same values before as one whose data is null.
  if (message.dataAtCommit === true) values.push('dataAtCommit');
  for (const field of LATER_FIELDS) {
    const value = message[field];
    // To name no group is to name none, however it is written.
    if (value === undefined || (field === 'expects' && message.expects?.length === 0)) continue;
    values.push([field, canonical(value)]);
  }
  return values;
}

/**
 * SHA-256 over the parsed request without its trace context, so that a repeat from another span is
 * still the same. `op` is part of it: a prepare does not repeat a send. Fields are hashed by their
 * place in a list, so a new one goes to the end of its list.
 *
 * @param checkAfterMs as the caller gave it; a group's default may change between two repeats
 */
export function contentHash(
  { id, producerGroup, businessKeys, expects, checkContext, messages }: Content,
  op: 'prepare' | 'send',
  checkAfterMs?: number,
): Buffer {
  const fixed = [op, id, producerGroup, businessKeys, expects, checkContext, checkAfterMs];
  return hash('sha256', JSON.stringify([...fixed, messages.map(valuesOf)]), 'buffer');
}
