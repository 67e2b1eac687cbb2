import { HEADERS } from '@escrowmq/protocol';
import type { ConsumeMessage, Options } from 'amqplib';
import type { NextStep } from './next-step.js';

/**
 * The AMQP properties of a copy that goes to a retry queue or to the dead-letter queue: the
 * original's, and why it is there. The body is passed on untouched.
 */
export function copyProperties(
  original: ConsumeMessage,
  step: NextStep,
  failure: { group: string; cause: string; now: number; firstFailedAt?: number | undefined },
): Options.Publish {
  const { properties } = original;
  const before: Record<string, unknown> = properties.headers ?? {};
  const failedHere = before[HEADERS.consumerGroup] === failure.group;
  const earlier = failedHere ? before[HEADERS.firstFailedAt] : undefined;
  const firstFailedAt = typeof earlier === 'number' ? earlier : failure.firstFailedAt;
  const headers: Record<string, unknown> = {
    ...passedOn(before),
    [HEADERS.attempts]: step.attempts,
    // A message nobody tried has attempts 0 and still a time at which it was put away.
    [HEADERS.firstFailedAt]: firstFailedAt ?? failure.now,
    [HEADERS.lastFailedAt]: failure.now,
    [HEADERS.consumerGroup]: failure.group,
    [HEADERS.cause]: failure.cause,
  };
  if (step.step === 'deadLetter') headers[HEADERS.deadReason] = step.reason;
  // Neither the user id, which closes the channel unless it is our own, nor an expiration, which
  // would end the copy in its queue.
  return {
    headers,
    messageId: properties.messageId,
    timestamp: properties.timestamp,
    type: properties.type,
    appId: properties.appId,
    contentType: properties.contentType,
    contentEncoding: properties.contentEncoding,
    correlationId: properties.correlationId,
    replyTo: properties.replyTo,
    priority: properties.priority,
  };
}

/**
 * All but what RabbitMQ would act on: `CC` and `BCC` deliver further copies, and with the old
 * `x-death` it would take the way through the retry queues for a cycle and drop the message. The
 * reason for a dead letter is decided anew when an operator sends one round again.
 */
function passedOn(headers: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers).filter(
      ([name]) => !/^(x-|cc$|bcc$)/i.test(name) && name !== HEADERS.deadReason,
    ),
  );
}
