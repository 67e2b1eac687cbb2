import { HEADERS } from '@escrowmq/protocol';
import type { ConsumeMessage, Options } from 'amqplib';
import { isDeadLetter } from '../delivery/tries.js';
import type { NextStep } from './next-step.js';
import { sendableTable, sendableTime, shortTexts } from './sendable.js';

/**
 * The AMQP properties of a copy that goes to a retry queue or to the dead-letter queue: the
 * original's, and why it is there. The body is passed on untouched.
 */
export function copyProperties(
  original: ConsumeMessage,
  step: NextStep,
  failure: CopiedFailure,
): Options.Publish {
  const { properties } = original;
  const timestamp: unknown = properties.timestamp;
  const before: Record<string, unknown> = properties.headers ?? {};
  const headers: Record<string, unknown> = {
    ...passedOn(before, failure.group),
    ...(isDeadLetter(before, failure.group) ? { [HEADERS.returnedAt]: failure.now } : {}),
    [HEADERS.consumerGroup]: failure.group,
    [HEADERS.attempts]: step.attempts,
  };
  if (step.postponed > 0) headers[HEADERS.postponed] = step.postponed;
  if (step.step === 'postpone') {
    if (step.notBefore !== undefined) headers[HEADERS.notBefore] = step.notBefore;
  } else {
    // A message nobody tried has attempts 0 and still a time at which it was put away.
    headers[HEADERS.firstFailedAt] ??= failure.firstFailedAt ?? failure.now;
    headers[HEADERS.lastFailedAt] = failure.now;
    headers[HEADERS.cause] = failure.cause;
  }
  if (step.step === 'deadLetter') {
    headers[HEADERS.deadReason] = step.reason;
    // It would have to be moved back first, to be back.
    delete headers[HEADERS.returnedAt];
  }
  const isShorter = step.step !== 'deadLetter' && step.inMs < step.queueMs;
  // Not the user id, which closes the channel unless it is our own; and no expiration but ours,
  // which ends the stay in a retry queue before the queue's own delay does.
  return {
    headers: sendableTable(headers),
    ...(isShorter ? { expiration: step.inMs } : {}),
    ...shortTexts(properties),
    ...(typeof timestamp === 'number' ? { timestamp: sendableTime(timestamp) } : {}),
    priority: properties.priority,
  };
}

/** Times in UTC milliseconds. */
export interface CopiedFailure {
  group: string;
  cause: string;
  now: number;
  /** Of a message that was tried again in its place; else the headers say it. */
  firstFailedAt?: number | undefined;
}

/** What was said of the message before; decided anew each time. */
const SAID_BEFORE: ReadonlySet<string> = new Set([HEADERS.deadReason, HEADERS.notBefore]);
/** What another group says of its own tries means nothing here, nor what was said before a death. */
const OF_ONE_GROUP: ReadonlySet<string> = new Set([
  HEADERS.attempts,
  HEADERS.postponed,
  HEADERS.firstFailedAt,
  HEADERS.lastFailedAt,
  HEADERS.cause,
  HEADERS.returnedAt,
]);

/**
 * All but what RabbitMQ would act on: `CC` and `BCC` deliver further copies, and with the old
 * `x-death` it would take the way through the retry queues for a cycle and drop the message.
 */
function passedOn(headers: Record<string, unknown>, group: string): Record<string, unknown> {
  const counts = headers[HEADERS.consumerGroup] === group && !isDeadLetter(headers, group);
  return Object.fromEntries(
    Object.entries(headers).filter(
      ([name]) =>
        !/^(x-|cc$|bcc$)/i.test(name) &&
        !SAID_BEFORE.has(name) &&
        (counts || !OF_ONE_GROUP.has(name)),
    ),
  );
}
