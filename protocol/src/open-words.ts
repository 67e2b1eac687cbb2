import { z } from 'zod';
import type { Schema } from './named.js';

/** One of the words that this version knows, or one that a newer peer says. */
export type OpenWord<Word extends string> = Word | (string & {});

/**
 * A word of an answer, from a list that may grow. What reads it gets on with one that it does not
 * know: it is shown as it came, and whoever decides by it does so by what stands beside it. In the
 * API description the words known today are listed, and that others may come.
 */
export function openWord<const Words extends readonly [string, ...string[]]>(
  words: Words,
): Schema<OpenWord<Words[number]>> {
  return z.union([z.enum(words), z.string().describe('A newer broker may say another word')]);
}
