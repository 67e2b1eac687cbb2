import { createHash } from 'node:crypto';

/** A number from 0 up to 1, the next one of a sequence that its seed fixes. */
export type Random = () => number;

/**
 * The sequence that belongs to these words, the same on every machine: mulberry32, started from
 * 32 bits of their hash. Whoever draws has a sequence of its own, so that one more draw in one
 * place changes nothing elsewhere.
 */
export function randomOf(...words: (string | number)[]): Random {
  let state = createHash('sha256').update(words.join('\0')).digest().readUInt32LE(0);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `min` to `max`, both of them included. */
export const between = (random: Random, min: number, max: number): number =>
  min + Math.floor(random() * (max - min + 1));

/** @throws RangeError when there is nothing to pick from */
export function pick<T>(random: Random, from: readonly T[]): T {
  const picked = from[Math.floor(random() * from.length)];
  if (picked === undefined) throw new RangeError('there is nothing to pick from');
  return picked;
}

/** A new array in random order. */
export function shuffled<T>(random: Random, items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
