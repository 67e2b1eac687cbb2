import type { Outgoing } from '../domain/outgoing.js';
import type { Blame } from './blame.js';
import type { InFlight } from './publish-window.js';
import { RefusedKeys } from './refused-keys.js';
import { bodyBytesMaxNamedIn } from './replies.js';
import type { Suspects } from './suspects.js';
import type { Topics } from './topics.js';

/** What one connection has learnt of messages that RabbitMQ refuses: not to publish them again, or not beside others. */
export class Refusals {
  readonly #topics: Topics;
  /** Outlive the connection, which one of them may have ended. */
  readonly #suspects: Suspects;
  readonly #keys = new RefusedKeys();
  /** RabbitMQ's `max_message_size`. It tells by closing the channel of a message that exceeds it. */
  #bodyBytesMax = Number.POSITIVE_INFINITY;

  constructor(topics: Topics, suspects: Suspects) {
    this.#topics = topics;
    this.#suspects = suspects;
  }

  /** Why RabbitMQ would close a channel over this message; undefined where it has not said so lately. */
  detailFor(message: Outgoing): string | undefined {
    if (message.body.length > this.#bodyBytesMax) {
      return `message ${message.messageId} has a body of ${message.body.length} bytes, and RabbitMQ's max_message_size is ${this.#bodyBytesMax}`;
    }
    return this.#keys.detailOf(message, performance.now());
  }

  mustGoAlone(message: Outgoing): boolean {
    if (this.#suspects.has(message.messageId)) return true;
    return this.#keys.mustGoAlone(message, performance.now());
  }

  /** RabbitMQ has answered the message, whatever it said. */
  answered(entry: InFlight): void {
    this.#suspects.clear(entry.messageId);
    this.#keys.permit(entry);
  }

  /** @param error that of the channel; absent where the connection ended */
  learn(blame: Blame, error: Error | undefined): void {
    switch (blame.kind) {
      case 'messages': {
        this.#bodyBytesMax = (error && bodyBytesMaxNamedIn(error)) ?? this.#bodyBytesMax;
        const { detail, refusedKey } = blame;
        if (refusedKey !== undefined) this.#keys.refuse(refusedKey, detail, performance.now());
        return;
      }
      case 'topic':
        this.#topics.refuse(blame.topic, blame.detail);
        return;
      case 'gone':
        this.#topics.forget(blame.topic);
        return;
      case 'oneOf':
        for (const { messageId } of blame.suspects) this.#suspects.add(messageId);
        return;
      case 'nobody':
        return;
    }
  }
}
