import { callForeign } from '@escrowmq/database';
import { causedBy, causeOf } from '../cause.js';
import type { ConsumeContext } from '../delivery/consume-one.js';
import type { Delivery } from '../delivery/delivery.js';
import { examine } from '../delivery/examine.js';
import { type CallEnd, callHandler } from '../delivery/handler-call.js';
import { type Envelope, ReceivedMessage } from '../delivery/message.js';
import { newCall } from '../delivery/new-call.js';
import { afterError, type NextStep, requeuePauseMs } from '../settle/next-step.js';
import {
  type Failure,
  putAside,
  settleAbandoned,
  settleConsumed,
  tellFailed,
  tellSettlingFailed,
} from '../settle/settle.js';
import { IN_PLACE_MS_MAX } from './options.js';
import type { Permit } from './semaphore.js';

/*
 * One delivery of a key, when all before it are settled. It stays out with us until it is settled
 * too: consumed, or put away as a dead letter. What fails waits here for its next attempt, and no
 * retry queue or requeue ever takes it out of its place.
 *
 * When its channel is lost, or the subscription is to end, it is given up as it is. RabbitMQ then
 * delivers it again, before all that follow it, with its attempts counted from the start.
 */
export async function consumeInOrder(
  delivery: Delivery,
  permit: Permit,
  context: ConsumeContext,
): Promise<void> {
  // What was lost while it waited for its turn.
  if (isOver(delivery, context)) {
    delivery.giveUp();
    return;
  }
  // Without the policy: nothing goes from here into a retry queue to wait for its time.
  const examined = examine(delivery.original, context.settings.group);
  if (examined.kind === 'refused') {
    await putAway({ delivery, permit, context }, examined);
    return;
  }
  const { envelope, data } = examined;
  context.asked.look(envelope);
  await tryUntilSettled({ delivery, permit, context }, { envelope, data });
}

interface InHand {
  delivery: Delivery;
  permit: Permit;
  context: ConsumeContext;
}

interface Content {
  envelope: Envelope;
  data: unknown;
}

async function tryUntilSettled(inHand: InHand, content: Content): Promise<void> {
  const { delivery, permit, context } = inHand;
  let { envelope } = content;
  let firstFailedAt: number | undefined;
  const since = performance.now();
  for (;;) {
    const { end, left } = await tryOnce(inHand, { ...content, envelope });
    if ('result' in end) {
      settleConsumed(delivery, envelope, context);
      break;
    }
    if (delivery.abandoned.isStopped) {
      settleAbandoned(delivery, context);
      // It comes again, perhaps to this very process: not while its handler still runs.
      await left();
      break;
    }
    firstFailedAt ??= context.now();
    const elapsedMs = performance.now() - since;
    const { next, error } = nextInPlace(end.error, envelope, { context, elapsedMs });
    const failure: Failure = { next, ...causedBy(error), envelope, firstFailedAt };
    if (next.step === 'deadLetter') {
      await putAway(inHand, failure);
      break;
    }
    tellFailed(delivery, failure, context);
    await permit.whileIn(pause(waitOf(next, context), inHand));
    if (isOver(delivery, context)) {
      delivery.giveUp();
      break;
    }
    const { attempts, postponed } = next;
    envelope = { ...envelope, attempts, postponed };
  }
}

interface InTime {
  context: ConsumeContext;
  /** Since the first attempt. */
  elapsedMs: number;
}

/**
 * What is next, when it must not take longer than a delivery may be out: a wait that a handler asks
 * for and that does not fit in is a failure, and a message without time is given up.
 */
function nextInPlace(error: unknown, envelope: Envelope, inTime: InTime) {
  const { attempts, postponed } = envelope;
  const { policy } = inTime.context;
  const asked = { next: afterError(error, { attempts, postponed }, policy), error };
  if (asked.next.step === 'deadLetter' || fits(asked.next, inTime)) return asked;
  const tooLong = new Error(`${causeOf(error)} (no time for that in an ordered group)`);
  const failed = { next: afterError(tooLong, { attempts, postponed }, policy), error: tooLong };
  if (failed.next.step === 'deadLetter' || fits(failed.next, inTime)) return failed;
  const spent = { attempts: failed.next.attempts, postponed };
  const givenUp: NextStep = { step: 'deadLetter', reason: 'exhausted', ...spent };
  return { next: givenUp, error: tooLong };
}

function fits(next: Wait, { context, elapsedMs }: InTime): boolean {
  const { handlerTimeoutMs } = context.settings;
  return elapsedMs + waitOf(next, context) + handlerTimeoutMs <= IN_PLACE_MS_MAX;
}

type Wait = Exclude<NextStep, { step: 'deadLetter' }>;

/** In its place a message waits in one go, where a retry queue may have to be entered again. */
function waitOf(next: Wait, context: ConsumeContext): number {
  const notBefore = next.step === 'postpone' ? next.notBefore : undefined;
  return notBefore === undefined ? next.inMs : notBefore - context.now();
}

interface Call {
  /** How it ended for us. */
  end: CallEnd;
  /** Resolves when the handler has ended for itself, at the latest when its time is over. */
  left(): Promise<void>;
}

function tryOnce({ delivery, context }: InHand, { envelope, data }: Content): Promise<Call> {
  const { handler, limits, settings } = context;
  const { original, abandoned } = delivery;
  const { group } = settings;
  const { stop, work } = newCall(settings, [envelope.id], context.log);
  const message = new ReceivedMessage(original, { envelope, data, group, stop, work });
  const outOfTime = performance.now() + limits.limitMs;
  let returned: unknown;
  return new Promise((resolve) => {
    callHandler({
      call() {
        returned = handler(message);
        return returned;
      },
      stop,
      work,
      abandoned,
      limits,
      ended: (end) => resolve({ end, left: () => endOf([returned, work.none()], outOfTime) }),
    });
  });
}

async function endOf(under: readonly unknown[], outOfTime: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, outOfTime - performance.now())).unref();
  });
  // How it ended was told already, or does not count any more.
  const ended = Promise.all(under.map(overOf));
  await Promise.race([ended, limit]);
  clearTimeout(timer);
}

/** Resolves when it is over, whatever it was and however it ended. */
const overOf = (returned: unknown): Promise<void> =>
  new Promise((resolve) => {
    callForeign(() => returned, { returned: () => resolve(), threw: () => resolve() });
  });

/** Makes it a dead letter. The key waits until that is confirmed, however long it takes. */
async function putAway(inHand: InHand, failure: Failure): Promise<void> {
  const { delivery, permit, context } = inHand;
  for (let tries = 0; ; tries += 1) {
    try {
      await putAside(delivery, failure, context);
      return;
    } catch (error) {
      const pauseMs = requeuePauseMs(tries);
      tellSettlingFailed(delivery, { error, requeueInMs: pauseMs }, context);
      await permit.whileIn(pause(pauseMs, inHand));
    }
    if (isOver(delivery, context)) {
      delivery.giveUp();
      return;
    }
    try {
      await delivery.repair();
    } catch {
      // A declaration that fails closes the channel, which is logged as `consumingLost` with this
      // very cause, and brings the message again.
      delivery.giveUp();
      return;
    }
  }
}

function isOver({ abandoned }: Delivery, { closing }: ConsumeContext): boolean {
  return abandoned.isStopped || closing.aborted;
}

/** Ends early when the delivery is abandoned or the subscription is to end. */
function pause(delayMs: number, { delivery, context }: InHand): Promise<void> {
  const { abandoned } = delivery;
  const { closing } = context;
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      abandoned.onStop(undefined);
      closing.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, delayMs);
    abandoned.onStop(end);
    closing.addEventListener('abort', end, { once: true });
    if (isOver(delivery, context)) end();
  });
}
