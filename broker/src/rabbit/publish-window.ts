import type { ConfirmChannel } from 'amqplib';
import type { Outgoing } from '../domain/outgoing.js';
import type { PublishOutcome } from '../domain/ports.js';

/** A confirm channel and what is unconfirmed on it. */
export interface PublishingChannel {
  channel: ConfirmChannel;
  inFlight: number;
  /** Nothing is published on it any more; it is closed when its last publish has an outcome. */
  retired: boolean;
  /** Why RabbitMQ closed it. */
  error: Error | undefined;
}

/** One publish without an outcome. */
export interface InFlight {
  message: Outgoing;
  deadlineMs: number;
  /** Absent while its topic is being declared: it has not been sent. */
  on: PublishingChannel | undefined;
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
    const deadlineMs = performance.now() + this.#limits.publishLimitMs;
    const entry: InFlight = { message, deadlineMs, on: undefined, returned: undefined, resolve };
    this.#inFlight.set(message.messageId, entry);
    this.#bytes += message.body.length;
    return entry;
  }

  find(messageId: string): InFlight | undefined {
    return this.#inFlight.get(messageId);
  }

  /** False once it has an outcome, also when the same message is in flight again. */
  holds(entry: InFlight): boolean {
    return this.#inFlight.get(entry.message.messageId) === entry;
  }

  settle(entry: InFlight, outcome: PublishOutcome): void {
    this.#inFlight.delete(entry.message.messageId);
    this.#bytes -= entry.message.body.length;
    const { on } = entry;
    if (on !== undefined) {
      on.inFlight--;
      if (on.retired) closeIfEmpty(on);
    }
    entry.resolve(outcome);
    if (this.#inFlight.size > 0) return;
    for (const wake of this.#emptied) wake();
    this.#emptied = [];
  }

  /** Everything on that channel, or everything at all, is `unconfirmed`. */
  giveUp(detail: string, on?: PublishingChannel): void {
    for (const entry of this.#inFlight.values()) {
      if (on !== undefined && entry.on !== on) continue;
      this.settle(entry, { kind: 'unconfirmed', detail });
    }
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
      const detail = `RabbitMQ did not confirm message ${entry.message.messageId} within ${this.#limits.publishLimitMs} ms`;
      this.settle(entry, { kind: 'unconfirmed', detail });
    }
    return late;
  }

  empty(): Promise<void> {
    if (this.#inFlight.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptied.push(resolve));
  }
}

/** Publishes nothing more there; those in flight still get their answer. */
export function retire(channel: PublishingChannel): void {
  channel.retired = true;
  closeIfEmpty(channel);
}

function closeIfEmpty({ channel, inFlight }: PublishingChannel): void {
  // Rejects only when it has closed by itself.
  if (inFlight === 0) channel.close().catch(() => undefined);
}
