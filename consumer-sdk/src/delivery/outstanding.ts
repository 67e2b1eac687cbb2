import type { Channel, ConsumeMessage } from 'amqplib';
import type { WatchedChannel } from '../rabbit/channel.js';
import type { Delivery } from './delivery.js';
import { Stop } from './stop.js';

/**
 * What is out on one channel, in the order of its delivery tags, and the acknowledgements of it.
 *
 * An acknowledgement costs the client 3 µs and RabbitMQ 8 [measured], for one message or, as
 * `multiple`, for all up to one. So they are sent once per turn of the event loop: one frame for
 * the messages from the oldest on that are settled without a gap, and one for each that is settled
 * behind a message whose handler still runs. The latter are not held back until the gap closes: a
 * slow handler would keep their places in the prefetch, and then nothing new comes.
 *
 * What is settled and not sent yet when the channel is lost comes again, as at-least-once allows.
 */
export class Outstanding {
  readonly #channel: Channel;
  readonly #watched: WatchedChannel;
  readonly #hooks: OutstandingHooks;
  /** A doubly linked list: most leave at its head, the others from the middle. */
  #first: Out | undefined;
  #last: Out | undefined;
  /** Settled since the last frame was sent, in no order. */
  #settled: Out[] = [];
  #flushes = false;

  constructor(channel: Channel, watched: WatchedChannel, hooks: OutstandingHooks) {
    this.#channel = channel;
    this.#watched = watched;
    this.#hooks = hooks;
  }

  /** To be called in the order of arrival. */
  add(original: ConsumeMessage): Delivery {
    const out = new Out(original, this);
    out.before = this.#last;
    if (this.#last === undefined) this.#first = out;
    else this.#last.after = out;
    this.#last = out;
    return out;
  }

  /** Stops all that is not settled: none of it can be settled on this channel any more. */
  abandon(reason: unknown): void {
    let out = this.#first;
    while (out !== undefined) {
      // A listener may finish it, which takes it off the list.
      const { after, isSettled } = out;
      if (!isSettled) out.abandoned.stop(reason);
      out = after;
    }
  }

  /** Sends the acknowledgements that wait. */
  flush(): void {
    const settled = this.#settled;
    this.#settled = [];
    // A closed channel has put its deliveries back already, and amqplib would throw.
    if (!this.#watched.isOpen) return;
    let last: Out | undefined;
    while (this.#first?.isSettled) {
      last = this.#first;
      this.#unlink(last);
      last.isSent = true;
    }
    // Outstanding itself: RabbitMQ closes the channel over a tag that it does not wait for.
    if (last !== undefined) this.#channel.ack(last.original, true);
    for (const out of settled) {
      if (out.isSent) continue;
      this.#unlink(out);
      this.#channel.ack(out.original);
    }
  }

  settle(out: Out): void {
    this.#settled.push(out);
    if (!this.#flushes) {
      this.#flushes = true;
      setImmediate(() => {
        this.#flushes = false;
        this.flush();
      });
    }
    this.#hooks.finished();
  }

  requeue(out: Out): void {
    this.#unlink(out);
    if (this.#watched.isOpen) this.#channel.nack(out.original, false, true);
    this.#hooks.finished();
  }

  giveUp(): void {
    // Stays on the list: nothing behind it may be acknowledged together with it.
    this.#hooks.finished();
  }

  repair(): Promise<void> {
    return this.#hooks.repair();
  }

  #unlink(out: Out): void {
    const { before, after } = out;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
  }
}

export interface OutstandingHooks {
  /** Told once for each delivery: nobody works on it any more. */
  finished(): void;
  repair(): Promise<void>;
}

class Out implements Delivery {
  readonly original: ConsumeMessage;
  readonly abandoned = new Stop();
  readonly #list: Outstanding;
  before: Out | undefined;
  after: Out | undefined;
  isSettled = false;
  isSent = false;

  constructor(original: ConsumeMessage, list: Outstanding) {
    this.original = original;
    this.#list = list;
  }

  ack(): void {
    this.isSettled = true;
    this.#list.settle(this);
  }

  requeue(): void {
    this.#list.requeue(this);
  }

  giveUp(): void {
    this.#list.giveUp();
  }

  repair(): Promise<void> {
    return this.#list.repair();
  }
}
