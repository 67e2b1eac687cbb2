import { createHash } from 'node:crypto';
import type { Content } from './transaction.js';

/** JSON with sorted keys: two requests that mean the same have one text. */
function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  const record = value as Record<string, unknown>;
  const members = Object.keys(record)
    .filter((key) => record[key] !== undefined)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(record[key])}`);
  return `{${members.join(',')}}`;
}

/**
 * SHA-256 over the parsed request without its trace context, so that a repeat from another span is
 * still the same. `op` is part of it: a prepare does not repeat a send.
 *
 * @param checkAfterMs as the caller gave it; a group's default may change between two repeats
 */
export function contentHash(
  content: Content,
  op: 'prepare' | 'send',
  checkAfterMs?: number,
): Buffer {
  const { trace, ...what } = content;
  return createHash('sha256')
    .update(`${op}\n${canonical({ ...what, checkAfterMs })}`)
    .digest();
}
