import type { Observer, Publisher } from '../domain/ports.js';
import { type KeptConnection, keepConnected } from './connection.js';
import { Publishing } from './publishing.js';
import { ReceiptConsumer, type ReceiptHandler } from './receipts.js';
import { parseServerUrl } from './server-url.js';

/**
 * Messages that may be unconfirmed at once. Measured, RabbitMQ confirmed 10,300/s with 100 in
 * flight and 21,000/s with 1,000 on a classic queue, 11,400/s and 28,400/s on a quorum queue; more
 * than that adds latency, and repeats when the connection is lost. Twice 1,000 keeps RabbitMQ busy
 * while the confirmed half is being marked in the store.
 */
const WINDOW_MAX = 2_000;

/** Bodies that may be unconfirmed at once: 64 of the largest transactions. */
const WINDOW_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Confirms take 10 to 150 ms under full load. After 10 s the message is better sent again: about
 * then the heartbeat gives up on a dead peer as well.
 */
const PUBLISH_LIMIT_MS = 10_000;

/** A shutdown waits this long for confirms and receipts in progress, then as long again to hang up. */
const CLOSE_LIMIT_MS = 5_000;

export interface RabbitOptions {
  /** `amqp://user:password@host:port/vhost` or `amqps://…` */
  url: string;
  observer: Pick<Observer, 'alert' | 'failed' | 'warn' | 'info' | 'recovered'>;
  /** Unconfirmed messages at once. @default 2000 */
  windowMax?: number;
  /** Bytes of their bodies; the message that crosses it is the last. @default 64 MiB */
  windowBytesMax?: number;
  /** Milliseconds after which a publish without a confirm is `unconfirmed`. @default 10,000 */
  publishLimitMs?: number;
  /** Milliseconds that `close` waits for outcomes, and then for goodbyes. @default 5,000 */
  closeLimitMs?: number;
}

export interface RabbitProblems {
  connection?: string;
  receipts?: string;
}

/** RabbitMQ as the broker uses it. */
export interface Rabbit extends Publisher {
  /** Why publishing is not possible now, and why receipts are not consumed; in words, for people. */
  readonly problems: RabbitProblems;
  /** Calls back each time that publishing becomes possible again: connected, or unblocked. */
  onReady(callback: () => void): void;
  /**
   * Declares the queue for receipts and hands over what arrives, at most 1,000 receipts and one
   * call at a time. What the handler rejects comes again. To be called once.
   */
  consumeReceipts(queue: string, handler: ReceiptHandler): void;
  /** Bounded by twice `closeLimitMs`. What is unconfirmed by then has the outcome `unconfirmed`. */
  close(): Promise<void>;
}

/**
 * Connects in the background and keeps connected; returns at once and does not fail when RabbitMQ
 * is away. Receipts have a connection of their own: RabbitMQ stops reading from one that publishes
 * when its memory or disk runs short, and their acknowledgements would be stuck behind.
 *
 * @throws Error, without the URL in it, when the URL is not one of RabbitMQ
 * @example
 * const rabbit = openRabbit({ url: 'amqp://localhost', observer });
 * rabbit.onReady(() => forwarder.wake());
 * const outcome = await rabbit.publish(message);
 */
export function openRabbit(options: RabbitOptions): Rabbit {
  const { observer } = options;
  const server = parseServerUrl(options.url);
  const closeLimitMs = options.closeLimitMs ?? CLOSE_LIMIT_MS;
  const publishing = new Publishing({
    observer,
    windowMax: options.windowMax ?? WINDOW_MAX,
    windowBytesMax: options.windowBytesMax ?? WINDOW_BYTES_MAX,
    publishLimitMs: options.publishLimitMs ?? PUBLISH_LIMIT_MS,
  });
  const publisherConnection = keepConnected(
    { server, name: 'escrowmq-broker', observer },
    publishing,
  );
  let receipts: { consumer: ReceiptConsumer; connection: KeptConnection } | undefined;

  return {
    publish: (message) => publishing.publish(message),
    get room() {
      return publishing.room;
    },
    get status() {
      return publishing.status;
    },
    get problems() {
      const connection = publisherConnection.problem;
      const ofReceipts = receipts?.connection.problem ?? receipts?.consumer.problem;
      return {
        ...(connection === undefined ? {} : { connection }),
        ...(ofReceipts === undefined ? {} : { receipts: ofReceipts }),
      };
    },
    onReady: (callback) => publishing.onReady(callback),
    consumeReceipts(queue, handler) {
      if (receipts !== undefined) throw new Error('receipts are being consumed already');
      const consumer = new ReceiptConsumer({ queue, handler, observer });
      const name = 'escrowmq-broker receipts';
      receipts = { consumer, connection: keepConnected({ server, name, observer }, consumer) };
    },
    async close() {
      await Promise.all([publishing.stop(closeLimitMs), receipts?.consumer.stop(closeLimitMs)]);
      await Promise.all([
        publisherConnection.close(closeLimitMs),
        receipts?.connection.close(closeLimitMs),
      ]);
    },
  };
}
