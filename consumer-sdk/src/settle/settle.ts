import { setTimeout as pause } from 'node:timers/promises';
import { deadLetterQueueName, retryQueueName } from '@escrowmq/protocol';
import type { ConsumeMessage } from 'amqplib';
import { causedBy, shortCause } from '../cause.js';
import type { Delivery } from '../delivery/delivery.js';
import type { Envelope } from '../delivery/message.js';
import { returnCountOf } from '../delivery/tries.js';
import type { Log, OnMessage } from '../events.js';
import type { Publisher } from '../rabbit/publisher.js';
import { copyProperties } from './copy.js';
import { type NextStep, requeuePauseMs } from './next-step.js';
import type { Receipts } from './receipts.js';

/*
 * How a delivery is settled, whoever handled it:
 *
 *   handler succeeded   receipt on its way (best effort) ─► acknowledge
 *   failed, postponed   copy to a retry queue, confirmed ─► acknowledge
 *   given up            dead letter, confirmed ─► `failed` receipt, confirmed ─► acknowledge
 *   not confirmed       pause ─► put back into the queue
 *   abandoned           nothing: RabbitMQ has it, and delivers it again
 *
 * The original leaves its queue last. A crash at any step therefore brings the message again, and
 * may leave a copy or a receipt too many, never one too few. Nothing here rejects: what fails is
 * logged, and the message is with RabbitMQ.
 */

export interface SettleContext {
  settings: { topic: string; group: string };
  publisher: Publisher;
  receipts: Receipts;
  log: Log;
  /** Aborted when the subscription is to end: pauses are cut short. */
  closing: AbortSignal;
  /** UTC milliseconds, for the times in headers. */
  now(): number;
}

/** A message that was not consumed, and what is to become of it. */
export interface Failure {
  next: NextStep;
  cause: string;
  /** What a handler threw; absent when none was called. */
  error?: unknown;
  /** Absent when it is not a message of ours. */
  envelope: Envelope | undefined;
  /** UTC milliseconds; by default what a copy says of itself, and for its first copy the present. */
  firstFailedAt?: number;
}

export function settleConsumed(
  delivery: Delivery,
  envelope: Envelope,
  context: SettleContext,
): void {
  if (delivery.abandoned.isStopped) {
    settleAbandoned(delivery, context);
    return;
  }
  const { id, attempts, receiptsQueue } = envelope;
  if (receiptsQueue !== undefined) {
    const { group } = context.settings;
    context.receipts.consumed(receiptsQueue, { messageId: id, consumerGroup: group, attempts });
  }
  delivery.ack();
}

/** Resolves when the delivery is finished; never rejects. */
export async function settleFailed(
  delivery: Delivery,
  failure: Failure,
  context: SettleContext,
): Promise<void> {
  if (delivery.abandoned.isStopped) {
    // A retry copy now would only make it two.
    settleAbandoned(delivery, context);
    return;
  }
  try {
    await putAside(delivery, failure, context);
  } catch (error) {
    const requeueInMs = requeuePauseMs(returnCountOf(delivery.original));
    tellSettlingFailed(delivery, { error, requeueInMs }, context);
    await putBack(delivery, requeueInMs, context.closing);
  }
}

/**
 * Publishes what stands for the message from now on, and acknowledges it.
 * @throws Error when that is not confirmed; the delivery is not finished then
 */
export async function putAside(
  delivery: Delivery,
  failure: Failure,
  context: SettleContext,
): Promise<void> {
  await publishInstead(delivery.original, failure, context);
  delivery.ack();
  tellFailed(delivery, failure, context);
}

/** Tells the log what is next for a message that failed. */
export function tellFailed(delivery: Delivery, failure: Failure, context: SettleContext): void {
  const { next, cause } = failure;
  const { attempts } = next;
  const why = 'error' in failure ? { cause, error: failure.error } : { cause };
  const about = { ...why, ...aboutOf(delivery.original, context) };
  if (next.step === 'retry') {
    context.log({ event: 'retryScheduled', attempts, delayMs: next.inMs, ...about });
  } else if (next.step === 'postpone') {
    const { postponed, inMs: delayMs } = next;
    context.log({ event: 'postponed', postponed, delayMs, ...about });
  } else {
    const { reason } = next;
    context.log({ event: 'deadLettered', reason, attempts, ...about });
  }
}

export function tellSettlingFailed(
  delivery: Delivery,
  failed: { error: unknown; requeueInMs: number },
  context: SettleContext,
): void {
  const { error, requeueInMs } = failed;
  const about = aboutOf(delivery.original, context);
  context.log({ event: 'settlingFailed', requeueInMs, ...causedBy(error), ...about });
}

export function settleAbandoned(delivery: Delivery, context: SettleContext): void {
  context.log({ event: 'deliveryLost', ...aboutOf(delivery.original, context) });
  delivery.giveUp();
}

async function publishInstead(
  original: ConsumeMessage,
  failure: Failure,
  context: SettleContext,
): Promise<void> {
  const { next, cause, envelope, firstFailedAt } = failure;
  const { topic, group } = context.settings;
  const now = context.now();
  const copy = copyProperties(original, next, { group, cause, now, firstFailedAt });
  if (next.step !== 'deadLetter') {
    const queue = retryQueueName(topic, group, next.queueMs);
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
    cause: shortCause(cause),
  });
}

async function putBack(delivery: Delivery, pauseMs: number, closing: AbortSignal): Promise<void> {
  // Cut short by closing, which is a reason to put it back at once.
  await pause(pauseMs, undefined, { signal: closing }).catch(() => undefined);
  if (delivery.abandoned.isStopped) {
    delivery.giveUp();
    return;
  }
  try {
    if (!closing.aborted) await delivery.repair();
  } catch {
    // A declaration that fails closes the channel, which puts the message back and is logged as
    // `consumingLost` with this very cause.
    delivery.giveUp();
    return;
  }
  delivery.requeue();
}

function aboutOf(original: ConsumeMessage, context: SettleContext): OnMessage {
  const { topic, group } = context.settings;
  const messageId: unknown = original.properties.messageId;
  return { topic, group, messageId: typeof messageId === 'string' ? messageId : undefined };
}
