import { attempt } from '@escrowmq/protocol';
import { type BegunWork, workOn } from '../delivery/begun-work.js';
import { ReceivedMessage } from '../delivery/message.js';
import type { WorkCall } from '../events.js';
import type { OnceMessage } from './apply-options.js';

/**
 * Does work on messages, and has their handlers see to its end: one that ends before it has failed. A
 * message of nobody's handler, from a test or a replay, has none to tell.
 *
 * @param run takes the signal to go by, where a copy of a message has lost its own, and whom to tell that
 *   its work sent nothing through its transaction
 */
export function begin<T>(
  call: WorkCall,
  messages: readonly OnceMessage[],
  run: (signal: AbortSignal | undefined, unused: () => void) => Promise<T>,
): Promise<T> {
  const handlers = new Set<BegunWork>();
  for (const message of messages) {
    const handler = attempt(() => handlerOf(message), undefined);
    if (handler !== undefined) handlers.add(handler);
  }
  const [first] = handlers;
  let work = run(first?.signal, () => first?.tellUnused(call));
  for (const handler of handlers) work = handler.follow(call, work);
  return work;
}

/** Throws for what is no message at all, which is refused by whoever reads it. */
const handlerOf = (message: OnceMessage): BegunWork | undefined =>
  ReceivedMessage.workOf(message) ?? workOn(message.id, message.group);
