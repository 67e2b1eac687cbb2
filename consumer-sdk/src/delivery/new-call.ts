import { causedBy } from '../cause.js';
import type { Log } from '../events.js';
import { BegunWork } from './begun-work.js';
import { Stop } from './stop.js';

/** What one call of a handler has to itself. */
export interface NewCall {
  /** Behind the signal of its messages. */
  stop: Stop;
  work: BegunWork;
}

/** @param ids of the messages that the handler is called with */
export function newCall(
  { topic, group }: { topic: string; group: string },
  ids: readonly string[],
  log: Log,
): NewCall {
  const stop = new Stop((error) => {
    const about = { topic, group, messageId: ids[0] };
    log({ event: 'callbackFailed', callback: 'abort listener', ...causedBy(error), ...about });
  });
  return { stop, work: new BegunWork({ topic, group, ids, stop, log }) };
}
