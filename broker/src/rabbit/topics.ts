import { type UnlikeTopic, unlikeTopicIn } from '@escrowmq/protocol';
import type { Channel, ChannelModel } from 'amqplib';
import { isRefusal, replyCodeOf } from './replies.js';

/** Asking again for a refused topic costs a channel; somebody who repairs it waits this long. */
const REFUSED_FOR_MS = 5_000;

export type TopicState =
  | { kind: 'ready' }
  /** RabbitMQ has said no; nothing was published and nothing will be for a few seconds. */
  | { kind: 'refused'; detail: string }
  /** Nobody knows yet: the connection ended first. */
  | { kind: 'unanswered'; detail: string };

const READY: TopicState = { kind: 'ready' };

/**
 * The topics of one connection. A topic is a durable topic exchange, declared before its first
 * publish, because a publish to an exchange that is not there closes the whole channel.
 *
 * Declarations happen on a channel of their own each, since a failing one closes it as well; one
 * topic's failure is that topic's alone. They go one after another: topics are few, and so are the
 * channels that a connection has.
 */
export class Topics {
  readonly #model: ChannelModel;
  readonly #foundUnlike: (topic: string, what: UnlikeTopic) => void;
  readonly #ready = new Set<string>();
  readonly #asserting = new Map<string, Promise<TopicState>>();
  /** In order of expiry, since all are refused for the same time. */
  readonly #refused = new Map<string, { detail: string; untilMs: number }>();
  #last: Promise<unknown> = Promise.resolve();

  /** @param foundUnlike called when a topic is used that somebody declared in another way */
  constructor(
    model: ChannelModel,
    foundUnlike: (topic: string, what: UnlikeTopic) => void = () => undefined,
  ) {
    this.#model = model;
    this.#foundUnlike = foundUnlike;
  }

  isReady(topic: string): boolean {
    return this.#ready.has(topic);
  }

  /** Declares the topic; calls for the same topic share one declaration. Never rejects. */
  assert(topic: string): Promise<TopicState> {
    if (this.#ready.has(topic)) return Promise.resolve(READY);
    const refused = this.#stillRefused(topic);
    if (refused !== undefined) return Promise.resolve({ kind: 'refused', detail: refused });
    let asserting = this.#asserting.get(topic);
    if (asserting === undefined) {
      asserting = this.#last.then(() => this.#declare(topic));
      this.#last = asserting;
      this.#asserting.set(topic, asserting);
    }
    return asserting;
  }

  /** The exchange is gone: the next publish declares it again. */
  forget(topic: string): void {
    this.#ready.delete(topic);
  }

  /** RabbitMQ refuses what is published to this topic. */
  refuse(topic: string, detail: string): void {
    this.#ready.delete(topic);
    this.#refused.delete(topic);
    this.#refused.set(topic, { detail, untilMs: performance.now() + REFUSED_FOR_MS });
  }

  async #declare(topic: string): Promise<TopicState> {
    try {
      await this.#declareOrFind(topic);
      this.#ready.add(topic);
      return READY;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (!isRefusal(error)) {
        return { kind: 'unanswered', detail: `topic ${topic} could not be declared: ${reason}` };
      }
      const detail = `topic ${topic} must be a durable topic exchange that this user may declare and write to: ${reason}`;
      this.refuse(topic, detail);
      return { kind: 'refused', detail };
    } finally {
      this.#asserting.delete(topic);
    }
  }

  async #declareOrFind(topic: string): Promise<void> {
    try {
      await this.#onItsOwnChannel((channel) =>
        channel.assertExchange(topic, 'topic', { durable: true }),
      );
    } catch (refusal) {
      const unlike = unlikeTopicIn(refusal);
      if (unlike !== undefined) return this.#foundUnlike(topic, unlike);
      if (replyCodeOf(refusal) !== 403) throw refusal;
      // A user who may not declare anything may still write to what somebody else has declared.
      const found = this.#onItsOwnChannel((channel) => channel.checkExchange(topic));
      await found.catch(() => Promise.reject(refusal));
    }
  }

  async #onItsOwnChannel(declare: (channel: Channel) => Promise<unknown>): Promise<void> {
    const channel = await this.#model.createChannel();
    // A refusal rejects the declaration as well; without a listener Node would end the process.
    channel.on('error', () => undefined);
    try {
      await declare(channel);
    } finally {
      // Rejects when the refusal has closed it already. Nobody needs to wait for the handshake.
      channel.close().catch(() => undefined);
    }
  }

  #stillRefused(topic: string): string | undefined {
    const now = performance.now();
    for (const [expired, { untilMs }] of this.#refused) {
      if (untilMs > now) break;
      this.#refused.delete(expired);
    }
    return this.#refused.get(topic)?.detail;
  }
}
