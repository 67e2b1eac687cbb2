/*
 * The one place where both SDKs call code of their users: handlers, callbacks, loggers, tracers. Such
 * code does what it likes: it throws, returns promises that nobody expects, things whose `then` throws,
 * or nothing for ever. How a call ended is told to one of two functions of ours, once, and nothing else
 * comes of it: no exception in the middle of our own work, and no rejection that nobody hears, which
 * would end the process.
 */

/** Is told how a call of foreign code ended. */
export interface ForeignEnds {
  /** It returned this, or its promise resolved to it. */
  returned(value: unknown): void;
  /** It threw this, or its promise rejected with it. */
  threw(error: unknown): void;
  /** Called before a promise is waited for. @default nobody is told */
  waits?(): void;
}

/** Calls foreign code; tells at once how a call ended that is over, and later for a promise. */
export function callForeign(call: () => unknown, ends: ForeignEnds): void {
  let value: unknown;
  let isPending = false;
  try {
    value = call();
    isPending = isThenable(value);
  } catch (error) {
    ends.threw(error);
    return;
  }
  if (!isPending) {
    ends.returned(value);
    return;
  }
  ends.waits?.();
  void follow(value, ends);
}

async function follow(value: unknown, ends: ForeignEnds): Promise<void> {
  let result: unknown;
  try {
    // A native promise is waited for as it is, whatever `then` somebody put on it.
    result = await value;
  } catch (error) {
    ends.threw(error);
    return;
  }
  ends.returned(result);
}

/** What `await` waits for. Throws what a hostile `then` throws, as `await` would. */
export function isThenable(value: unknown): boolean {
  const isObject = (typeof value === 'object' && value !== null) || typeof value === 'function';
  return isObject && 'then' in value && typeof value.then === 'function';
}

const nothing = () => {};

/** Calls foreign code for what it does. @param threw is told when it threw, at once or later */
export function tellForeign(call: () => unknown, threw: (error: unknown) => void): void {
  callForeign(call, { returned: nothing, threw });
}
