import { callForeign } from './foreign.js';

/**
 * Does work inside a user's span, and lets the span decide nothing: the work is done exactly once, and
 * its end is its own. A tracer that throws, never calls the work, calls it twice or loses its result is
 * told to `failed`, and the work goes on without it.
 *
 * @param open calls what it is given inside a span, as a user's `tracing.span` does
 * @param work takes what the span hands it; undefined without a span
 * @returns as the work does
 */
export function inSpan<S, T>(
  open: (call: (given?: S) => Promise<T>) => unknown,
  work: (given: S | undefined) => Promise<T> | T,
  failed: (error: unknown) => void,
): Promise<T> {
  let done: Promise<T> | undefined;
  let outcome: { error: unknown } | undefined;
  return new Promise<T>((resolve) => {
    const call = (given?: S): Promise<T> => {
      if (done !== undefined) return done;
      clearTimeout(timer);
      done = (async () => work(given))();
      done.catch((error: unknown) => {
        outcome = { error };
      });
      resolve(done);
      return done;
    };
    const withoutSpan = () => void call().catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    callForeign(() => open(call), {
      // A span may be begun a moment later, but not be what everybody waits for.
      waits() {
        if (done === undefined) timer = setTimeout(withoutSpan, BEGIN_MS_MAX);
      },
      returned() {
        if (done === undefined) failed(new Error('the span never called its work'));
        withoutSpan();
      },
      threw(error) {
        // That of the work itself is passed on, as it should be.
        if (outcome === undefined || outcome.error !== error) failed(error);
        withoutSpan();
      },
    });
  });
}

/** Half of what the SDK gives a prepare; a tracer needs microseconds. */
const BEGIN_MS_MAX = 1_000;
