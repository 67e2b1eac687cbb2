import type { ConfirmChannel } from 'amqplib';
import type { Outgoing } from '../domain/outgoing.js';
import type { PublishOutcome } from '../domain/ports.js';
import type { PublishOn } from './burst-publishing.js';

/** A confirm channel and what is unconfirmed on it. */
export interface PublishingChannel {
  channel: ConfirmChannel;
  publish: PublishOn;
  inFlight: number;
  /** Messages that were published on it. */
  published: number;
  /** Nothing is published on it any more; it is closed when its last publish has an outcome. */
  retired: boolean;
  /** Why RabbitMQ closed it. */
  error: Error | undefined;
}

/** One publish without an outcome. It keeps no body: that is on its way to RabbitMQ. */
export interface InFlight {
  readonly messageId: string;
  readonly topic: string;
  readonly routingKey: string;
  readonly bodyBytes: number;
  readonly deadlineMs: number;
  /** Absent while its topic is being declared: it has not been sent. */
  on: PublishingChannel | undefined;
  /** Counts what was published on its channel. */
  number: number;
  /** What RabbitMQ said when it returned the message. */
  returned: string | undefined;
  resolve(outcome: PublishOutcome): void;
}

export interface WindowLimits {
  windowMax: number;
  windowBytesMax: number;
  publishLimitMs: number;
}

/**
 * The publishes without an outcome: how many there may be, since when, and that each of them gets
 * exactly one. Times are those of `performance.now()`.
 */
export class PublishWindow {
  readonly #limits: WindowLimits;
  /** By message id, in the order of their deadlines, since all have the same limit. */
  readonly #inFlight = new Map<string, InFlight>();
  #bytes = 0;
  #emptied: (() => void)[] = [];

  constructor(limits: WindowLimits) {
    this.#limits = limits;
  }

  /** Messages that fit now. The one whose body crosses the limit of bytes is the last. */
  get room(): number {
    if (this.#bytes >= this.#limits.windowBytesMax) return 0;
    return Math.max(0, this.#limits.windowMax - this.#inFlight.size);
  }

  get description(): string {
    return `${this.#inFlight.size} messages of ${this.#bytes} bytes are unconfirmed`;
  }

  add(message: Outgoing, resolve: (outcome: PublishOutcome) => void): InFlight {
    const { messageId, topic, routingKey } = message;
    const entry: InFlight = {
      messageId,
      topic,
      routingKey,
      bodyBytes: message.body.length,
      deadlineMs: performance.now() + this.#limits.publishLimitMs,
      on: undefined,
      number: 0,
      returned: undefined,
      resolve,
    };
    this.#inFlight.set(messageId, entry);
    this.#bytes += entry.bodyBytes;
    return entry;
  }

  find(messageId: string): InFlight | undefined {
    return this.#inFlight.get(messageId);
  }

  /** False once it has an outcome, also when the same message is in flight again. */
  holds(entry: InFlight): boolean {
    return this.#inFlight.get(entry.messageId) === entry;
  }

  settle(entry: InFlight, outcome: PublishOutcome): void {
    const { messageId, bodyBytes, on, resolve } = entry;
    this.#inFlight.delete(messageId);
    this.#bytes -= bodyBytes;
    entry.resolve = nobodyWaits;
    if (on !== undefined) {
      on.inFlight--;
      if (on.retired) closeIfEmpty(on);
    }
    resolve(outcome);
    if (this.#inFlight.size > 0) return;
    for (const wake of this.#emptied) wake();
    this.#emptied = [];
  }

  /** Everything without an outcome is `unconfirmed`. */
  giveUp(detail: string): void {
    for (const entry of this.#inFlight.values()) {
      this.settle(entry, { kind: 'unconfirmed', detail });
    }
  }

  /** What is in flight on that channel, in the order in which it was published there. */
  inFlightOn(channel: PublishingChannel): InFlight[] {
    const found: InFlight[] = [];
    for (const entry of this.#inFlight.values()) if (entry.on === channel) found.push(entry);
    return found.sort((one, other) => one.number - other.number);
  }

  /**
   * What has outlived its limit is `unconfirmed`.
   * @returns the channels on which that happened
   */
  expire(nowMs: number): Set<PublishingChannel> {
    const late = new Set<PublishingChannel>();
    for (const entry of this.#inFlight.values()) {
      if (entry.deadlineMs > nowMs) break;
      if (entry.on !== undefined) late.add(entry.on);
      const detail = `RabbitMQ did not confirm message ${entry.messageId} within ${this.#limits.publishLimitMs} ms`;
      this.settle(entry, { kind: 'unconfirmed', detail });
    }
    return late;
  }

  empty(): Promise<void> {
    if (this.#inFlight.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptied.push(resolve));
  }
}

/**
 * In the place of a caller that has its outcome. V8 keeps the tables that a busy map has outgrown,
 * with all they ever held, until it collects everything; an entry that still knew its caller kept
 * the whole transaction. Measured in forwarding alone: a third of what was young survived each
 * scavenge, and 30 % of the time went there; now a tenth survives.
 */
const nobodyWaits = () => undefined;

/** Publishes nothing more there; those in flight still get their answer. */
export function retire(channel: PublishingChannel): void {
  channel.retired = true;
  closeIfEmpty(channel);
}

function closeIfEmpty({ channel, inFlight }: PublishingChannel): void {
  // Rejects only when it has closed by itself.
  if (inFlight === 0) channel.close().catch(() => undefined);
}
