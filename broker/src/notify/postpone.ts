/** What a handler throws so that the message comes again later. */
export function postpone(_afterMs: number, detail: string): Error {
  return new Error(detail);
}
