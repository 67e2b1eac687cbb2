import { tellForeign } from '@escrowmq/database';

/**
 * A signal that may be aborted whatever its listeners do: what one of them throws, or rejects with,
 * would be an uncaught exception, and end the process of a consumer whose handler ran out of time. The
 * signal itself can't keep that in, so the listeners are wrapped when they are added.
 *
 * @param failed is told what a listener threw
 */
export function guardedController(failed: (error: unknown) => void): AbortController {
  const controller = new AbortController();
  const { signal } = controller;
  const guards = new WeakMap<object, (event: Event) => void>();
  const guardOf = (listener: Listener): ((event: Event) => void) => {
    const known = guards.get(listener);
    if (known !== undefined) return known;
    const guard = (event: Event) =>
      tellForeign(() => callListener(listener, signal, event), failed);
    guards.set(listener, guard);
    return guard;
  };
  // Whatever else is given as a listener is the signal's own to refuse.
  const guarded = (listener: unknown) => (isListener(listener) ? guardOf(listener) : listener);
  const { addEventListener, removeEventListener } = signal;
  const add = (type: unknown, listener: unknown, ...options: unknown[]) =>
    Reflect.apply(addEventListener, signal, [type, guarded(listener), ...options]);
  const remove = (type: unknown, listener: unknown, ...options: unknown[]) =>
    Reflect.apply(removeEventListener, signal, [type, guarded(listener), ...options]);
  let onabort: { given: Listener; listener: Listener } | undefined;
  Object.defineProperties(signal, {
    addEventListener: { value: add },
    removeEventListener: { value: remove },
    onabort: {
      get: () => onabort?.given ?? null,
      set(listener: unknown) {
        if (onabort !== undefined) remove('abort', onabort.listener);
        onabort = undefined;
        if (!isListener(listener)) return;
        // Of its own, as the same function may have been added beside it.
        onabort = {
          given: listener,
          listener: (event) => callListener(listener, signal, event),
        };
        add('abort', onabort.listener);
      },
    },
  });
  return controller;
}

type Listener = ((event: Event) => unknown) | { handleEvent(event: Event): unknown };

const isListener = (listener: unknown): listener is Listener =>
  typeof listener === 'function' || (typeof listener === 'object' && listener !== null);

function callListener(listener: Listener, signal: AbortSignal, event: Event): unknown {
  return typeof listener === 'function'
    ? Reflect.apply(listener, signal, [event])
    : listener.handleEvent(event);
}
