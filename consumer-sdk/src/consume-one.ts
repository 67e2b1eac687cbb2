import { setTimeout as pause } from 'node:timers/promises';
import { deadLetterQueueName, retryQueueName } from '@escrowmq/protocol';
import type { ConsumeMessage } from 'amqplib';
import { causeOf } from './cause.js';
import { copyProperties } from './copy.js';
import type { Log, OnMessage } from './events.js';
import {
  attemptsOf,
  deliveryCountOf,
  type Envelope,
  type Message,
  parseDelivery,
} from './message.js';
import { afterFailure, type DeadReason, type NextStep, requeuePauseMs } from './next-step.js';
import type { SubscribeSettings } from './options.js';
import { isPermanentError } from './permanent-error.js';
import type { Publisher } from './publisher.js';
import type { Receipts } from './receipts.js';
import { Stop } from './stop.js';
import { REDELIVERIES_MAX } from './topology.js';

/**
 * One delivery from RabbitMQ, from arrival to its settlement:
 *
 *   handler succeeded   receipt on its way (best effort) ─► acknowledge
 *   handler failed      copy to a retry queue, confirmed ─► acknowledge
 *   given up            dead letter, confirmed ─► `failed` receipt, confirmed ─► acknowledge
 *   not confirmed       pause ─► put back into the queue
 *
 * The original leaves its queue last. A crash at any step therefore brings the message again, and
 * may leave a copy or a receipt too many, never one too few. Nothing here rejects: what fails is
 * logged, and the message is with RabbitMQ.
 */
export interface Delivery {
  readonly original: ConsumeMessage;
  /**
   * Stopped when this delivery can not be settled any more: its channel is lost, or `close` has
   * stopped waiting. RabbitMQ delivers the message again.
   */
  readonly abandoned: Stop;
  ack(): void;
  requeue(): void;
  /** Declares the queues again, in case one that we publish to was deleted. */
  repair(): Promise<void>;
}

export type Handler<Data> = (message: Message<Data>) => unknown;

export interface ConsumeContext {
  settings: SubscribeSettings;
  handler: Handler<never>;
  publisher: Publisher;
  receipts: Receipts;
  log: Log;
  /** Aborted when the subscription is to end: pauses are cut short. */
  closing: AbortSignal;
  /** UTC milliseconds, for the times in headers. */
  now(): number;
}

type Attempt =
  | { kind: 'consumed'; envelope: Envelope }
  | { kind: 'failed'; next: NextStep; cause: string; envelope: Envelope | undefined };

export async function consumeOne(delivery: Delivery, context: ConsumeContext): Promise<void> {
  const { settings, receipts, log } = context;
  const about: OnMessage = {
    topic: settings.topic,
    group: settings.group,
    messageId: messageIdOf(delivery.original),
  };
  const attempt = await attemptOnce(delivery, context);
  if (delivery.abandoned.isStopped) {
    // It comes again, here or elsewhere. A retry copy now would only make it two.
    log({ event: 'deliveryLost', ...about });
    return;
  }
  if (attempt.kind === 'consumed') {
    const { id, receiptsQueue } = attempt.envelope;
    if (receiptsQueue !== undefined) {
      receipts.consumed(receiptsQueue, { messageId: id, consumerGroup: settings.group });
    }
    delivery.ack();
    return;
  }
  try {
    await putAside(attempt, delivery, context);
  } catch (error) {
    const requeueInMs = requeuePauseMs(deliveryCountOf(delivery.original));
    log({ event: 'settlingFailed', cause: causeOf(error), requeueInMs, ...about });
    await putBack(delivery, requeueInMs, context.closing);
    return;
  }
  delivery.ack();
  const { next, cause } = attempt;
  if (next.step === 'retry') {
    const { delayMs, attempts } = next;
    log({ event: 'retryScheduled', attempts, delayMs, cause, ...about });
  } else {
    const { reason, attempts } = next;
    log({ event: 'deadLettered', reason, attempts, cause, ...about });
  }
}

async function attemptOnce(delivery: Delivery, context: ConsumeContext): Promise<Attempt> {
  const { original } = delivery;
  const { group, retryDelaysMs } = context.settings;
  const parsed = parseDelivery(original, group);
  const envelope = parsed.kind === 'foreign' ? undefined : parsed.envelope;
  const attemptsBefore = envelope?.attempts ?? attemptsOf(original.properties.headers ?? {}, group);
  const untried = (reason: DeadReason, cause: string): Attempt => ({
    kind: 'failed',
    next: { step: 'deadLetter', reason, attempts: attemptsBefore },
    cause,
    envelope,
  });
  if (parsed.kind !== 'message') return untried(parsed.kind, parsed.cause);
  const deliveries = deliveryCountOf(original);
  if (deliveries >= REDELIVERIES_MAX) {
    return untried('redelivered', `delivered ${deliveries} times before and never settled`);
  }
  try {
    await runHandler(parsed, delivery, context);
    return { kind: 'consumed', envelope: parsed.envelope };
  } catch (error) {
    const next = afterFailure(attemptsBefore, isPermanentError(error), retryDelaysMs);
    return { kind: 'failed', next, cause: causeOf(error), envelope };
  }
}

/** Rejects as the handler does, or when its time is over, or when the delivery is abandoned. */
async function runHandler(
  parsed: { envelope: Envelope; data: unknown },
  delivery: Delivery,
  context: ConsumeContext,
): Promise<void> {
  const { receiptsQueue, ...envelope } = parsed.envelope;
  const { handlerTimeoutMs, group } = context.settings;
  const stop = new Stop();
  const message: Message<never> = {
    ...envelope,
    group,
    data: parsed.data as never,
    body: delivery.original.content,
    redelivered: delivery.original.fields.redelivered,
    get signal() {
      return stop.signal;
    },
  };
  const timer = setTimeout(() => {
    stop.stop(new Error(`the handler did not finish within ${handlerTimeoutMs} ms`));
  }, handlerTimeoutMs);
  delivery.abandoned.onStop((reason) => stop.stop(reason));
  try {
    await new Promise<unknown>((resolve, reject) => {
      stop.onStop(reject);
      // A handler that throws at once must look like one that rejects.
      const handled = (async () => context.handler(message))();
      handled.then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    delivery.abandoned.onStop(undefined);
  }
}

/** Publishes what stands for the message from now on. When it resolves, that is confirmed. */
async function putAside(
  failed: Extract<Attempt, { kind: 'failed' }>,
  delivery: Delivery,
  context: ConsumeContext,
): Promise<void> {
  const { next, cause, envelope } = failed;
  const { topic, group } = context.settings;
  const { original } = delivery;
  const copy = copyProperties(original, next, { group, cause, now: context.now() });
  if (next.step === 'retry') {
    const queue = retryQueueName(topic, group, next.delayMs);
    await context.publisher.publish(queue, original.content, copy);
    return;
  }
  // First the dead letter: a producer told of a failure may compensate at once, and the message
  // must not be one that is still going to be tried.
  await context.publisher.publish(deadLetterQueueName(topic, group), original.content, copy);
  if (envelope?.receiptsQueue === undefined) return;
  const { id, receiptsQueue } = envelope;
  const { attempts } = next;
  await context.receipts.failed(receiptsQueue, {
    messageId: id,
    consumerGroup: group,
    attempts,
    cause,
  });
}

async function putBack(delivery: Delivery, pauseMs: number, closing: AbortSignal): Promise<void> {
  // Cut short by closing, which is a reason to put it back at once.
  await pause(pauseMs, undefined, { signal: closing }).catch(() => undefined);
  if (delivery.abandoned.isStopped) return;
  try {
    if (!closing.aborted) await delivery.repair();
  } catch {
    // A declaration that fails closes the channel, which puts the message back and is logged as
    // `consumingLost` with this very cause.
    return;
  }
  delivery.requeue();
}

function messageIdOf(original: ConsumeMessage): string | undefined {
  const { messageId } = original.properties;
  return typeof messageId === 'string' ? messageId : undefined;
}
