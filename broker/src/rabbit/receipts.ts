import { setTimeout as pause } from 'node:timers/promises';
import {
  type Coalescer,
  type ConsumerReceipt,
  createCoalescer,
  isEscrowError,
  RECEIPTS_QUEUE_ARGUMENTS,
} from '@escrowmq/protocol';
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import type { Observer } from '../domain/ports.js';
import type { ConnectionListener } from './connection.js';
import { readReceipts } from './read-receipts.js';
import { isRefusal, replyCodeOf, saidIn } from './replies.js';
import { atMost } from './time-limit.js';

/*
 * Consumers' receipts, from their queue to the handler. What it guarantees: a message is
 * acknowledged after the handler has taken its receipts, never before, so receipts reach the
 * handler at least once; those that the handler saw and a lost connection kept from being
 * acknowledged come again. A message that is no batch of receipts is reported and acknowledged: it
 * would be the same garbage every time. So is a receipt that can not be read, without its neighbours.
 *
 * A handler that fails is called again after a pause with the messages still in hand. They are not
 * given back to the queue, because RabbitMQ 4 drops a message for good after 20 returns, and a
 * database is away for longer than that. Only what fails alone, with an error that trying again
 * does not help, goes back: other instances may know better, and the rest of the queue goes on.
 *
 * A RabbitMQ that refuses the queue, for want of a permission or because somebody declared it
 * otherwise, raises one alert, and is asked again with growing pauses, until somebody has repaired it.
 */

/** Messages in hand. Each holds up to 500 receipts, so this is enough for full calls. */
const PREFETCH = 20;

/** Receipts per call of the handler; the next ones are received and parsed meanwhile. */
const RECEIPTS_PER_CALL_MAX = 1_000;

/** Long enough not to spin, short against the time that people wait for a display. */
const RETRY_AFTER_MS = 1_000;

/** Whoever grants a permission sees within a minute that it was the right one. */
const RETRY_AFTER_MS_MAX = 60_000;

const CONSUMING = 'consuming receipts';

export type ReceiptHandler = (receipts: ConsumerReceipt[]) => Promise<void>;

interface Received {
  delivery: ConsumeMessage;
  receipts: ConsumerReceipt[];
}

/** One channel, from opened to closed. */
interface Session {
  channel: Channel;
  consumerTag: string | undefined;
  open: boolean;
  error: Error | undefined;
  coalescer: Coalescer<Received, undefined>;
}

export class ReceiptConsumer implements ConnectionListener {
  readonly #queue: string;
  readonly #handler: ReceiptHandler;
  readonly #observer: Pick<Observer, 'alert' | 'failed' | 'recovered'>;
  readonly #stopping = new AbortController();
  #model: ChannelModel | undefined;
  #session: Session | undefined;
  #problem: string | undefined;
  /** Since receipts were consumed last: each asks later than the one before. */
  #failures = 0;
  #alerted = false;

  constructor(options: {
    queue: string;
    handler: ReceiptHandler;
    observer: Pick<Observer, 'alert' | 'failed' | 'recovered'>;
  }) {
    this.#queue = options.queue;
    this.#handler = options.handler;
    this.#observer = options.observer;
  }

  /** Why nothing is consumed although RabbitMQ is connected. */
  get problem(): string | undefined {
    return this.#problem;
  }

  connected(model: ChannelModel): void {
    this.#model = model;
    void this.#consumeFrom(model);
  }

  disconnected(): void {
    this.#model = undefined;
  }

  /** Never seen: RabbitMQ blocks only connections that publish. */
  blocked(): void {}
  unblocked(): void {}

  /** Takes no more messages, and waits up to `limitMs` for those that the handler has now. */
  async stop(limitMs: number): Promise<void> {
    this.#stopping.abort();
    const session = this.#session;
    if (session?.consumerTag === undefined || !session.open) return;
    const { channel, consumerTag, coalescer } = session;
    async function finish(tag: string): Promise<void> {
      await channel.cancel(tag);
      await coalescer.idle();
      // The end of the connection would overtake acknowledgements that are still being written;
      // the end of their own channel comes after them.
      await channel.close();
    }
    try {
      await atMost(limitMs, finish(consumerTag));
    } catch (error) {
      this.#observer.failed('ending the consumption of receipts', error);
    }
    // What the handler ends later than this is not acknowledged, and comes again.
    session.open = false;
  }

  async #consumeFrom(model: ChannelModel): Promise<void> {
    while (this.#model === model && !this.#stopping.signal.aborted) {
      try {
        await this.#consumeUntilClosed(model);
      } catch (error) {
        // With its connection gone the channel is not worth a word of its own.
        if (this.#model === model) this.#failed(error);
      }
      await this.#pause(backOffMs(this.#failures));
    }
  }

  #failed(error: unknown): void {
    this.#observer.failed(CONSUMING, error);
    const reason = error instanceof Error ? saidIn(error) : String(error);
    this.#failures += 1;
    this.#problem = `the queue ${this.#queue} can not be consumed: ${reason}`;
    if (this.#alerted || !isRefusal(error)) return;
    this.#alerted = true;
    const detail = `${this.#problem}; consumers' receipts wait there, and with them what expects a group, and compensations`;
    this.#observer.alert({ kind: 'receiptsRefused', queue: this.#queue, detail });
  }

  #consumes(): void {
    this.#failures = 0;
    this.#problem = undefined;
    this.#alerted = false;
    this.#observer.recovered(CONSUMING);
  }

  async #consumeUntilClosed(model: ChannelModel): Promise<void> {
    const channel = await model.createChannel();
    const session: Session = {
      channel,
      consumerTag: undefined,
      open: true,
      error: undefined,
      coalescer: createCoalescer({
        flush: (batch) => this.#handOver(session, batch),
        batchMax: PREFETCH,
        batchBytesMax: RECEIPTS_PER_CALL_MAX,
        sizeOf: ({ receipts }) => receipts.length,
        waitingMax: PREFETCH,
        refuse: () => new Error(`RabbitMQ delivered more than the ${PREFETCH} messages it may`),
      }),
    };
    this.#session = session;
    const closed = new Promise<void>((resolve) => {
      channel.on('close', () => {
        session.open = false;
        resolve();
      });
    });
    channel.on('error', (error) => {
      session.error = error;
    });
    channel.on('handler-error', (error) => this.#observer.failed('receiving receipts', error));

    await this.#declare(model, channel);
    await channel.prefetch(PREFETCH);
    const { consumerTag } = await channel.consume(this.#queue, (delivery) =>
      this.#received(session, delivery),
    );
    session.consumerTag = consumerTag;
    this.#consumes();
    await closed;
    if (session.error !== undefined) throw session.error;
  }

  /** A user who may read the queue need not be allowed to declare it, if it is there. */
  async #declare(model: ChannelModel, channel: Channel): Promise<void> {
    const declaring = await model.createChannel();
    // A refusal rejects the declaration as well; without a listener Node would end the process.
    declaring.on('error', () => undefined);
    try {
      const options = { durable: true, arguments: RECEIPTS_QUEUE_ARGUMENTS };
      await declaring.assertQueue(this.#queue, options);
    } catch (refusal) {
      if (replyCodeOf(refusal) !== 403) throw refusal;
      await channel.checkQueue(this.#queue).catch(() => Promise.reject(refusal));
    } finally {
      // Rejects when the refusal has closed it already.
      declaring.close().catch(() => undefined);
    }
  }

  #received(session: Session, delivery: ConsumeMessage | null): void {
    if (delivery === null) {
      // The queue was deleted. A new channel declares it again.
      session.error = new Error(`the queue ${this.#queue} was deleted`);
      session.channel.close().catch(() => undefined);
      return;
    }
    const { receipts, problems } = readReceipts(delivery.content);
    const [problem] = problems;
    if (problem !== undefined) {
      const dropped =
        receipts.length === 0 ? 'which is' : `of which ${problems.length} receipts are`;
      this.#observer.failed(
        `reading a message of ${delivery.content.length} bytes on ${this.#queue}, ${dropped} dropped`,
        new Error(problem),
      );
    }
    if (receipts.length === 0) {
      session.channel.ack(delivery);
      return;
    }
    session.coalescer.call({ delivery, receipts }).catch((error: unknown) => {
      this.#observer.failed('handing over receipts', error);
    });
  }

  /** Never rejects. Returns when every message is acknowledged, given back, or not ours any more. */
  async #handOver(session: Session, batch: Received[]): Promise<undefined[]> {
    while (session.open && !this.#stopping.signal.aborted) {
      try {
        await this.#handler(batch.flatMap(({ receipts }) => receipts));
        if (session.open) for (const { delivery } of batch) session.channel.ack(delivery);
        break;
      } catch (error) {
        this.#observer.failed(`taking the receipts of ${batch.length} messages`, error);
        await this.#pause();
        if (isEscrowError(error) && error.retryable) continue;
        if (batch.length > 1) for (const one of batch) await this.#handOver(session, [one]);
        else if (session.open) for (const { delivery } of batch) session.channel.nack(delivery);
        break;
      }
    }
    return batch.map(() => undefined);
  }

  async #pause(delayMs = RETRY_AFTER_MS): Promise<void> {
    try {
      await pause(delayMs, undefined, { signal: this.#stopping.signal });
    } catch {
      // Aborted by stop(), which the loops see by themselves.
    }
  }
}

/** Doubles from the second failure in a row. */
function backOffMs(failures: number): number {
  return Math.min(
    RETRY_AFTER_MS_MAX,
    RETRY_AFTER_MS * 2 ** Math.min(Math.max(failures - 1, 0), 10),
  );
}
