import { isEscrowError } from '@escrowmq/protocol';
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { causedBy } from '../cause.js';
import type { Log } from '../events.js';
import { type WatchedChannel, watchChannel } from '../rabbit/channel.js';
import { keepOpen } from '../rabbit/keep-open.js';
import type { Publisher } from '../rabbit/publisher.js';
import type { Receipts } from '../settle/receipts.js';
import type { Tracing } from '../tracing.js';
import { withinMs } from '../within-ms.js';
import type { Delivery } from './delivery.js';
import { Outstanding } from './outstanding.js';

/**
 * One consumer of one queue on one channel, kept alive: when the channel is lost, with its
 * connection or alone, or RabbitMQ cancels the consumer (its queue was deleted), everything is
 * declared again and consumed again. What was out on the old channel is abandoned: it can not be
 * acknowledged any more, and RabbitMQ delivers it again.
 */
export interface RunningSubscription {
  /** Resolves when deliveries flow for the first time. */
  started(timeoutMs: number): Promise<void>;
  /**
   * Stops the deliveries; queue and channel stay, also over a reconnect. Resolves when those that
   * are out are finished.
   */
  pause(): Promise<void>;
  /** Resolves when deliveries flow again; while RabbitMQ is away they begin when it is back. */
  resume(): Promise<void>;
  /** Takes no more messages and waits for those that are out, at most `drainTimeoutMs`. */
  close(): Promise<void>;
}

/** What the subscriptions of one consumer share, whatever they do with their deliveries. */
export interface Shared {
  /** The one to consume on. */
  connection: {
    get(timeoutMs: number, signal: AbortSignal): Promise<ChannelModel>;
  };
  publisher: Publisher;
  receipts: Receipts;
  log: Log;
  tracing: Tracing | undefined;
}

export interface SubscriptionParts {
  /** For events and errors. */
  topic: string;
  group: string;
  /** What is consumed; declared by `declare`. */
  queue: string;
  /** Messages out at a time. */
  prefetch: number;
  drainTimeoutMs: number;
  /** Declares all that this consumer needs, the queue among it. */
  declare(channel: Channel, model: ChannelModel): Promise<void>;
  /** Gets each delivery in its order, and finishes it, now or later. */
  take(delivery: Delivery): void;
  /** Aborted by `close`, before it waits: nothing new is begun then. */
  closing: AbortController;
  /**
   * Where the order of the queue counts: `close` does not cancel the consumer first, which would
   * let another one begin while older messages are out here. Such a one is closed, never paused.
   * @default false
   */
  endsWithItsChannel?: boolean;
  connection: Shared['connection'];
  log: Log;
}

/** A channel that consumes, unless paused, and what is out on it. */
interface Session {
  channel: Channel;
  watched: WatchedChannel;
  /** Absent while nothing is delivered. */
  consumerTag: string | undefined;
  outstanding: Outstanding;
  /** RabbitMQ's own cancellation ends the session. */
  cancelled(reason: unknown): void;
  /** Beginning and stopping deliveries, one after the other. */
  changes: Promise<void>;
}

/** Longer than one reconnect takes; then the loop tries again. */
const CONNECTION_TIMEOUT_MS = 10_000;

export function startSubscription(parts: SubscriptionParts): RunningSubscription {
  const { topic, group, queue, closing, log } = parts;
  const running = new Running();
  let isPaused = false;
  /** The last one, perhaps not open yet, perhaps lost. */
  let latest: Session | undefined;

  const kept = keepOpen<Session>({
    what: `the subscription of ${group} to ${topic}`,
    async open(signal) {
      closing.signal.throwIfAborted();
      const model = await parts.connection.get(CONNECTION_TIMEOUT_MS, signal);
      const channel = await model.createChannel();
      const watched = watchChannel(channel);
      try {
        return await consumeOn(model, channel, watched);
      } catch (error) {
        await watched.close();
        throw error;
      }
    },
    onOpen() {
      log({ event: isPaused ? 'paused' : 'consuming', topic, group });
    },
    onLost: (cause, retryInMs) =>
      log({ event: 'consumingLost', topic, group, retryInMs, ...causedBy(cause) }),
    // Connection troubles pass; what exists with other properties stays.
    isFatal: isEscrowError,
  });

  async function consumeOn(model: ChannelModel, channel: Channel, watched: WatchedChannel) {
    await parts.declare(channel, model);
    // Per consumer: RabbitMQ 4 refuses a limit for the whole channel.
    await channel.prefetch(parts.prefetch, false);
    const outstanding = new Outstanding(channel, watched, {
      finished: () => running.end(),
      repair: () => parts.declare(channel, model),
    });
    let cancelled: (reason: unknown) => void = () => {};
    const lost = Promise.race([
      watched.lost,
      new Promise<unknown>((resolve) => {
        cancelled = resolve;
      }),
    ]);
    const session: Session = {
      channel,
      watched,
      consumerTag: undefined,
      outstanding,
      cancelled,
      changes: Promise.resolve(),
    };
    // Before anything is opened again: no handler may take its late success for settled.
    const lostAndAbandoned = lost.then((cause) => {
      outstanding.abandon(cause);
      return cause;
    });
    latest = session;
    await beginOrStop(session);
    return { value: session, lost: lostAndAbandoned, close: () => watched.close() };
  }

  /** Makes the session what `isPaused` says, after what is being changed already. */
  function beginOrStop(session: Session): Promise<void> {
    session.changes = session.changes.catch(() => undefined).then(() => change(session));
    return session.changes;
  }

  async function change(session: Session): Promise<void> {
    const { channel, watched, consumerTag } = session;
    if (isPaused === (consumerTag === undefined) || closing.signal.aborted) return;
    if (consumerTag !== undefined) {
      session.consumerTag = undefined;
      await answered(watched, channel.cancel(consumerTag));
      return;
    }
    const reply = await answered(
      watched,
      channel.consume(queue, (message) => {
        if (message !== null) take(message, session);
        else session.cancelled(new Error('RabbitMQ cancelled the consumer: queue deleted?'));
      }),
    );
    session.consumerTag = reply.consumerTag;
  }

  /** For what has been paused or resumed: a channel that is lost is opened as it should be. */
  async function changeLatest(): Promise<void> {
    if (latest?.watched.isOpen) await beginOrStop(latest).catch(() => undefined);
  }

  function take(message: ConsumeMessage, session: Session): void {
    // Untouched, so that it goes back when the channel is closed.
    if (closing.signal.aborted) return;
    running.begin();
    parts.take(session.outstanding.add(message));
  }

  /** Stops deliveries and waits for those that run. */
  async function drain(): Promise<void> {
    const session = kept.current;
    // Whatever is being changed comes first: a consumer that just begins must be cancelled too.
    await session?.changes.catch(() => undefined);
    const cancels = parts.endsWithItsChannel !== true;
    if (cancels && session?.watched.isOpen && session.consumerTag !== undefined) {
      // Fails only with the channel, which ends the deliveries just as well.
      const cancelling = session.channel.cancel(session.consumerTag);
      await answered(session.watched, cancelling).catch(() => undefined);
    }
    await withinMs(running.none(), parts.drainTimeoutMs);
    if (running.count > 0) {
      log({ event: 'drainTimedOut', topic, group, running: running.count });
      session?.outstanding.abandon(new Error(`the subscription of ${group} to ${topic} is closed`));
    }
    session?.outstanding.flush();
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
    async pause() {
      if (!isPaused) {
        isPaused = true;
        log({ event: 'paused', topic, group });
      }
      await changeLatest();
      await running.none();
    },
    async resume() {
      if (isPaused) {
        isPaused = false;
        log({ event: 'resumed', topic, group });
      }
      await changeLatest();
    },
    close() {
      closed ??= closeOnce();
      return closed;
    },
  };
}

/** The answer to a call, or the loss of its channel: amqplib does not always tell it then. */
function answered<T>(watched: WatchedChannel, call: Promise<T>): Promise<T> {
  const lost = watched.lost.then((reason): T => {
    throw reason;
  });
  return Promise.race([call, lost]);
}

/** Counts the deliveries that somebody works on. */
class Running {
  count = 0;
  #whenNone: (() => void)[] = [];

  begin(): void {
    this.count += 1;
  }

  end(): void {
    this.count -= 1;
    if (this.count > 0) return;
    for (const tell of this.#whenNone.splice(0)) tell();
  }

  /** Resolves when nobody works on any. */
  none(): Promise<void> {
    if (this.count === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenNone.push(resolve));
  }
}
