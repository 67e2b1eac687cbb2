import { isEscrowError, queueName } from '@escrowmq/protocol';
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { causeOf } from './cause.js';
import { type WatchedChannel, watchChannel } from './channel.js';
import { type ConsumeContext, consumeOne, type Delivery, type Handler } from './consume-one.js';
import type { Log } from './events.js';
import { keepOpen } from './keep-open.js';
import type { SubscribeSettings } from './options.js';
import type { Publisher } from './publisher.js';
import type { Receipts } from './receipts.js';
import { Stop } from './stop.js';
import { declareTopology } from './topology.js';

/**
 * One consumer on one channel, kept alive: when the channel is lost, with its connection or alone,
 * or RabbitMQ cancels the consumer (its queue was deleted), everything is declared again and
 * consumed again. What was out on the old channel is abandoned: it can not be acknowledged any
 * more, and RabbitMQ delivers it again.
 */
export interface RunningSubscription {
  /** Resolves when deliveries flow for the first time. */
  started(timeoutMs: number): Promise<void>;
  close(): Promise<void>;
}

export interface SubscriptionParts {
  settings: SubscribeSettings;
  handler: Handler<never>;
  connection: {
    get(timeoutMs: number, signal: AbortSignal): Promise<ChannelModel>;
  };
  publisher: Publisher;
  receipts: Receipts;
  log: Log;
}

/** A channel that consumes, and what is out on it. */
interface Session {
  channel: Channel;
  watched: WatchedChannel;
  consumerTag: string;
  /** One for each delivery that is not settled; stopped when it can not be settled any more. */
  out: Set<Stop>;
}

/** Longer than one reconnect takes; then the loop tries again. */
const CONNECTION_TIMEOUT_MS = 10_000;

export function startSubscription(parts: SubscriptionParts): RunningSubscription {
  const { settings, log } = parts;
  const { topic, group, concurrency, drainTimeoutMs } = settings;
  const closing = new AbortController();
  const running = new Set<Promise<void>>();
  const context: ConsumeContext = { ...parts, closing: closing.signal, now: Date.now };

  const kept = keepOpen<Session>({
    what: `the subscription of ${group} to ${topic}`,
    async open(signal) {
      closing.signal.throwIfAborted();
      const model = await parts.connection.get(CONNECTION_TIMEOUT_MS, signal);
      const channel = await model.createChannel();
      const watched = watchChannel(channel);
      try {
        return await consumeOn(channel, watched);
      } catch (error) {
        await watched.close();
        throw error;
      }
    },
    onOpen: () => log({ event: 'consuming', topic, group }),
    onLost: (cause, retryInMs) =>
      log({ event: 'consumingLost', topic, group, cause: causeOf(cause), retryInMs }),
    // Connection troubles pass; what exists with other properties stays.
    isFatal: isEscrowError,
  });

  async function consumeOn(channel: Channel, watched: WatchedChannel) {
    await declareTopology(channel, settings);
    // Per consumer: RabbitMQ 4 refuses a limit for the whole channel.
    await channel.prefetch(concurrency, false);
    const session: Session = { channel, watched, consumerTag: '', out: new Set() };
    let cancelled: (reason: unknown) => void = () => {};
    const lost = Promise.race([
      watched.lost,
      new Promise<unknown>((resolve) => {
        cancelled = resolve;
      }),
    ]);
    const reply = await channel.consume(queueName(topic, group), (message) => {
      if (message === null) cancelled(new Error('RabbitMQ cancelled the consumer: queue deleted?'));
      else take(message, session);
    });
    session.consumerTag = reply.consumerTag;
    // Before anything is opened again: no handler may take its late success for settled.
    const lostAndAbandoned = lost.then((cause) => {
      abandon(session, cause);
      return cause;
    });
    return { value: session, lost: lostAndAbandoned, close: () => watched.close() };
  }

  function take(message: ConsumeMessage, session: Session): void {
    // Untouched, so that it goes back when the channel is closed.
    if (closing.signal.aborted) return;
    const abandoned = new Stop();
    session.out.add(abandoned);
    const delivery = deliveryOn(session, message, abandoned);
    const work = consumeOne(delivery, context).finally(() => {
      session.out.delete(abandoned);
      running.delete(work);
    });
    running.add(work);
  }

  function deliveryOn(session: Session, original: ConsumeMessage, abandoned: Stop): Delivery {
    const { channel, watched } = session;
    // A closed channel has put its deliveries back already, and amqplib would throw.
    return {
      original,
      abandoned,
      ack: () => {
        if (watched.isOpen) channel.ack(original);
      },
      requeue: () => {
        if (watched.isOpen) channel.nack(original, false, true);
      },
      repair: () => declareTopology(channel, settings),
    };
  }

  /** Stops deliveries and waits for those that run. */
  async function drain(): Promise<void> {
    const session = kept.current;
    if (session?.watched.isOpen) {
      // Fails only with the channel, which ends the deliveries just as well.
      const cancelling = session.channel.cancel(session.consumerTag).catch(() => undefined);
      await Promise.race([cancelling, session.watched.lost]);
    }
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, drainTimeoutMs);
    });
    await Promise.race([settled(running), tooLong]);
    clearTimeout(timer);
    if (running.size === 0) return;
    log({ event: 'drainTimedOut', topic, group, running: running.size });
    if (session) abandon(session, new Error(`the subscription of ${group} to ${topic} is closed`));
  }

  async function closeOnce(): Promise<void> {
    closing.abort();
    await drain();
    await kept.close();
  }
  let closed: Promise<void> | undefined;

  return {
    async started(timeoutMs) {
      await kept.get(timeoutMs, closing.signal);
    },
    close() {
      closed ??= closeOnce();
      return closed;
    },
  };
}

function abandon(session: Session, cause: unknown): void {
  for (const delivery of session.out) delivery.stop(cause);
}

/** Resolves when the set is empty; more may be added while it waits. */
async function settled(running: Set<Promise<void>>): Promise<void> {
  while (running.size > 0) await Promise.all(running);
}
