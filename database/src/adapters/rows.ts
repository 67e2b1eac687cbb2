/** For layers that have one call for what answers rows and another for what does not. */
export function answersRows(sql: string): boolean {
  return /^\s*select\b/i.test(sql);
}
