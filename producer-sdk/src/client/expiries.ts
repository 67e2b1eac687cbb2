import type { Deadline } from '@escrowmq/database';

/** Calls that end at their deadline if nothing else ends them before. */
export interface Expiries<T> {
  add(call: T): void;
  /** For a call that has ended by itself. */
  delete(call: T): void;
}

/** The calls of one time limit, oldest first: a Set keeps the order in which they came. */
interface Queue<T> {
  calls: Set<T>;
  timer: NodeJS.Timeout | undefined;
}

/**
 * Deadlines of many calls with one timer for each time limit. Calls of the same limit expire in the
 * order they began, so the timer only ever waits for the oldest.
 *
 * @param expire called once for each call whose deadline passes
 */
export function createExpiries<T extends { deadline: Deadline }>(
  expire: (call: T) => void,
): Expiries<T> {
  const queues = new Map<number, Queue<T>>();

  function queueOf({ deadline }: T): Queue<T> {
    const known = queues.get(deadline.limitMs);
    if (known !== undefined) return known;
    const queue: Queue<T> = { calls: new Set(), timer: undefined };
    queues.set(deadline.limitMs, queue);
    return queue;
  }

  function expireDue(queue: Queue<T>): void {
    queue.timer = undefined;
    for (const call of queue.calls) {
      if (!call.deadline.hasPassed) {
        wait(queue, call);
        return;
      }
      queue.calls.delete(call);
      expire(call);
    }
  }

  function wait(queue: Queue<T>, oldest: T): void {
    queue.timer = setTimeout(expireDue, oldest.deadline.leftMs, queue);
  }

  return {
    add(call) {
      const queue = queueOf(call);
      queue.calls.add(call);
      if (queue.timer === undefined) wait(queue, call);
    },
    delete(call) {
      const queue = queueOf(call);
      queue.calls.delete(call);
      if (queue.calls.size > 0) return;
      clearTimeout(queue.timer);
      queue.timer = undefined;
    },
  };
}
