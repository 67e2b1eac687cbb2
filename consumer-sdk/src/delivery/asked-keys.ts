import { matchesTopicPattern } from '@escrowmq/protocol';
import type { Log } from '../events.js';
import { OnceAMinute } from '../once-a-minute.js';
import type { Envelope } from './message.js';

/*
 * Says when a message comes whose routing key this subscription did not ask for. The queue is the
 * group's, with the bindings of all its instances: another one asks for other keys, and gets this
 * one's messages in return; or a key was bound once and is not listed any more. The handler gets the
 * message all the same. To put it back would be to hope that the right instance draws it next.
 */

/** Keys whose answer is remembered; a topic has some dozens. */
const REMEMBERED_MAX = 1_000;

export class AskedKeys {
  readonly #about: { topic: string; group: string };
  readonly #patterns: readonly string[];
  readonly #log: Log;
  readonly #isAsked = new Map<string, boolean>();
  readonly #unasked = new OnceAMinute();

  constructor(
    settings: { topic: string; group: string; routingKeys: readonly string[] },
    log: Log,
  ) {
    const { topic, group, routingKeys } = settings;
    this.#about = { topic, group };
    this.#patterns = routingKeys.includes('#') ? [] : routingKeys;
    this.#log = log;
  }

  /** To be told of each delivery; counts a message once, and not each of its attempts. */
  look({ id, routingKey, attempts, postponed }: Envelope): void {
    if (this.#patterns.length === 0 || attempts + postponed > 0) return;
    if (this.#asks(routingKey)) return;
    const count = this.#unasked.count(performance.now());
    if (count === undefined) return;
    this.#log({ event: 'messageUnasked', ...this.#about, messageId: id, routingKey, count });
  }

  #asks(routingKey: string): boolean {
    const known = this.#isAsked.get(routingKey);
    if (known !== undefined) return known;
    if (this.#isAsked.size >= REMEMBERED_MAX) this.#isAsked.clear();
    const isAsked = this.#patterns.some((pattern) => matchesTopicPattern(pattern, routingKey));
    this.#isAsked.set(routingKey, isAsked);
    return isAsked;
  }
}
