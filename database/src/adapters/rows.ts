import type { Row } from '../database.js';

/** What a layer answered, where it gives the rows of a select and something else for the rest. */
export function rowsIn(answer: unknown): Row[] {
  return Array.isArray(answer) ? answer : [];
}

/** For layers that have one call for what answers rows and another for what does not. */
export function answersRows(sql: string): boolean {
  return /^\s*select\b/i.test(sql);
}
