import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { type Caused, causedBy } from '../cause.js';
import { NO_GROUP } from '../delivery/begun-work.js';
import type { Delivery } from '../delivery/delivery.js';
import { type CallEnd, callHandler, type HandlerCallParts } from '../delivery/handler-call.js';
import { parseDelivery, ReceivedMessage } from '../delivery/message.js';
import { newCall } from '../delivery/new-call.js';
import { Stop } from '../delivery/stop.js';
import {
  type RunningSubscription,
  type Shared,
  startSubscription,
} from '../delivery/subscription.js';
import { TimeLimits } from '../delivery/time-limits.js';
import { declareTopic } from '../rabbit/topic.js';
import { named } from '../rabbit/topology.js';
import { tracedHandler } from '../tracing.js';
import { InOrder } from './in-order.js';
import type { EphemeralHandler, EphemeralSettings, GapReason } from './options.js';

/*
 * A subscription of this very instance, for what it keeps in its memory: a queue of its own that
 * goes with its connection, nothing durable, nothing tried again. It promises no message. What it
 * does promise is that `onGap` is called whenever one may be missing:
 *
 *   exchange topic ──routing keys──► queue ──(full: its oldest)──► queue of one, which tells
 *
 * The queue is new after every loss, so every opening but the first is a gap: told once the new
 * queue is bound, and before anything of it is handled. And RabbitMQ hands what a full queue drops
 * to the second queue. Its first message tells of the gap, and those that come while the gap is
 * being told take each other's place: they say nothing new.
 *
 * Messages are handled one after the other in the order of the queue; whoever keeps the latest
 * state of things must not have them overtake each other.
 */

/** Fetched ahead, so that the way to RabbitMQ and back is not waited for between two messages. */
const PREFETCH = 256;

/**
 * For a queue whose consumer never began or was paused; without consumers an auto-delete queue that
 * never had one would stay as long as the connection.
 */
const UNUSED_MS = 5 * 60 * 1000;

const OF_THIS_INSTANCE = { exclusive: true, autoDelete: true, durable: false } as const;

export function subscribeEphemeral(
  settings: EphemeralSettings,
  handler: EphemeralHandler<never>,
  { connection, log, tracing }: Shared,
): RunningSubscription {
  const { topic, routingKeys } = settings;
  const traced = tracedHandler(handler, { tracing, log });
  const limits = new TimeLimits(settings.handlerTimeoutMs);
  const closing = new AbortController();
  const inOrder = new InOrder();
  let wasDeclared = false;
  /** What was fetched before it could be told is not handled any more. */
  let isGapUntold = false;

  /** How it ended, by itself, by its time limit, or because it is not waited for any more. */
  const ended = (call: () => unknown, more: Partial<HandlerCallParts> = {}) =>
    new Promise<CallEnd>((resolve) => {
      const alone = { stop: new Stop(), abandoned: new Stop() };
      callHandler({ ...alone, ...more, call, limits, ended: resolve });
    });

  async function tellGap(reason: GapReason): Promise<void> {
    log({ event: 'gap', topic, reason });
    isGapUntold = true;
    const end = await ended(() => settings.onGap(reason));
    if ('error' in end) throw end.error;
    isGapUntold = false;
  }

  async function declare(channel: Channel, model: ChannelModel): Promise<void> {
    await declareTopic(model, topic);
    const dropped = await channel.assertQueue('', {
      ...OF_THIS_INSTANCE,
      arguments: { 'x-max-length': 1, 'x-overflow': 'drop-head', 'x-expires': UNUSED_MS },
    });
    // Last of all, because it is consumed as the queue that was declared last, by no name.
    const { queue } = await channel.assertQueue('', {
      ...OF_THIS_INSTANCE,
      arguments: {
        'x-max-length': settings.queueMessagesMax,
        'x-max-length-bytes': settings.queueBytesMax,
        'x-overflow': 'drop-head',
        'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': dropped.queue,
        'x-expires': UNUSED_MS,
      },
    });
    await consumeDropped(channel, dropped.queue, queue);
    for (const routingKey of routingKeys) {
      await named(`the binding to ${topic}`, channel.bindQueue(queue, topic, routingKey));
    }
    // Not earlier: what comes between this and the binding would be missed unseen.
    if (wasDeclared) await inOrder.next(() => tellGap('reconnected'));
    wasDeclared = true;
  }

  /** Tells of what RabbitMQ dropped from `queue` into `dropped`. */
  async function consumeDropped(channel: Channel, dropped: string, queue: string): Promise<void> {
    // Cancels its consumer, so that the next queue begins with a gap. Fails only with the channel,
    // which comes to the same.
    const giveUpQueue = () => void channel.deleteQueue(queue).catch(() => undefined);
    await channel.prefetch(1, false);
    await channel.consume(dropped, (message) => {
      if (message === null) return giveUpQueue();
      inOrder
        .next(() => tellGap('overflow'))
        // Only now, so that no more of them come than gaps are told.
        .then(() => ackIfOpen(channel, message))
        .catch((error: unknown) => {
          log({ event: 'gapFailed', topic, reason: 'overflow', ...causedBy(error) });
          giveUpQueue();
        });
    });
  }

  async function handle(delivery: Delivery): Promise<void> {
    const { original, abandoned } = delivery;
    const isPointless = closing.signal.aborted || abandoned.isStopped || isGapUntold;
    if (isPointless) return delivery.giveUp();
    const parsed = parseDelivery(original, NO_GROUP);
    if (parsed.kind !== 'message') return drop(delivery, parsed);
    const { envelope, data } = parsed;
    const { stop, work } = newCall({ topic, group: NO_GROUP }, [envelope.id], log);
    const message = new ReceivedMessage(original, { envelope, data, group: NO_GROUP, stop, work });
    const end = await ended(() => traced(message), { stop, work, abandoned });
    if (abandoned.isStopped) delivery.giveUp();
    else if ('error' in end) drop(delivery, causedBy(end.error));
    else delivery.ack();
  }

  function drop(delivery: Delivery, why: Caused): void {
    const messageId: unknown = delivery.original.properties.messageId;
    log({
      event: 'messageDropped',
      topic,
      group: NO_GROUP,
      messageId: typeof messageId === 'string' ? messageId : undefined,
      cause: why.cause,
      ...('error' in why ? { error: why.error } : {}),
    });
    delivery.ack();
  }

  return startSubscription({
    topic,
    group: NO_GROUP,
    queue: '',
    prefetch: PREFETCH,
    drainTimeoutMs: settings.drainTimeoutMs,
    declare,
    take: (delivery) => inOrder.later(() => handle(delivery)),
    closing,
    connection,
    log,
  });
}

function ackIfOpen(channel: Channel, message: ConsumeMessage): void {
  try {
    channel.ack(message);
  } catch {
    // amqplib throws where the channel is closed or being closed, and nowhere else: its queues go
    // with it, and there is nothing to acknowledge.
  }
}
