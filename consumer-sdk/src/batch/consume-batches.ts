import { type TopicPlaces, textOfError } from '@escrowmq/protocol';
import { failureOf } from '../delivery/consume-one.js';
import type { Delivery } from '../delivery/delivery.js';
import { examine } from '../delivery/examine.js';
import { type GroupContext, subscribeGroup } from '../delivery/group-subscription.js';
import { type CallEnd, callHandler } from '../delivery/handler-call.js';
import { type Envelope, type Message, ReceivedMessage } from '../delivery/message.js';
import { newCall } from '../delivery/new-call.js';
import { Stop } from '../delivery/stop.js';
import type { RunningSubscription, Shared } from '../delivery/subscription.js';
import { deliveryCountOf } from '../delivery/tries.js';
import { settleAbandoned, settleConsumed, settleFailed } from '../settle/settle.js';
import { handleInSpan } from '../tracing.js';
import { type Fit, fitData } from '../typed/fit-data.js';
import { Batches, type Gathered } from './batches.js';
import type { BatchHandler, BatchOutcome, BatchSettings } from './options.js';

/** A message that waits for its batch, or is in it. */
interface Item extends Gathered {
  delivery: Delivery;
  envelope: Envelope;
  data: unknown;
  /** Of the schema of a typed topic. */
  version?: number;
}

/**
 * What came back unsettled this often is handled alone. A lost connection brings everything back
 * once; a message that kills its process brings it back again and again.
 */
const ALONE_AFTER_REDELIVERIES = 3;

/**
 * Calls the handler with many messages at a time, one batch after the other. Each delivery is
 * examined when it arrives and settled by itself, as it would be alone; a batch is only the way
 * between the two.
 */
export function subscribeToBatches(
  settings: BatchSettings,
  handler: BatchHandler<never>,
  shared: Shared,
): RunningSubscription {
  const { batchMax, batchWaitMs } = settings;
  return subscribeGroup(settings.subscribe, shared, (context) => {
    const call = tracedBatchHandler(handler, shared);
    const batches = new Batches<Item>({
      batchMax,
      waitMs: batchWaitMs,
      handle: (batch) => handleBatch(batch, call, context),
    });
    context.closing.addEventListener('abort', () => {
      // Untouched, they go back when the channel is closed.
      for (const { delivery } of batches.end()) delivery.giveUp();
    });
    return (delivery) => gather(delivery, batches, context);
  });
}

function tracedBatchHandler(
  handler: BatchHandler<never>,
  { tracing, log }: Pick<Shared, 'tracing' | 'log'>,
): (messages: ReceivedMessage[]) => unknown {
  if (tracing === undefined) return handler;
  return (messages) => handleInSpan({ tracing, log }, messages, () => handler(messages));
}

function gather(delivery: Delivery, batches: Batches<Item>, context: GroupContext): void {
  const { original } = delivery;
  const { group, places } = context.settings;
  const examined = examine(original, group, context.policy);
  if (examined.kind === 'refused') {
    void settleFailed(delivery, examined, context);
    return;
  }
  const { envelope, data } = examined;
  context.asked.look(envelope);
  const hasFailed = envelope.attempts > 0 || envelope.returned;
  const isAlone = hasFailed || deliveryCountOf(original) >= ALONE_AFTER_REDELIVERIES;
  const item = { delivery, envelope, data, isAlone };
  if (places === undefined) addTo(batches, item, context);
  else fitAndAdd(batches, item, { places, context });
}

/** What fits no schema never gets into a batch, and fails alone. */
function fitAndAdd(
  batches: Batches<Item>,
  item: Item,
  { places, context }: { places: TopicPlaces; context: GroupContext },
): void {
  const { delivery, envelope, data } = item;
  callHandler({
    call: () => fitData(places, { ...envelope, data }),
    stop: new Stop(),
    abandoned: delivery.abandoned,
    limits: context.limits,
    ended(end) {
      if ('error' in end) {
        void settleFailed(delivery, failureOf(end.error, envelope, context), context);
      } else addTo(batches, { ...item, ...(end.result as Fit) }, context);
    },
  });
}

function addTo(batches: Batches<Item>, item: Item, context: GroupContext): void {
  const { delivery } = item;
  // No batch begins any more.
  if (context.closing.aborted) {
    delivery.giveUp();
    return;
  }
  // Until its batch begins; then the batch listens.
  delivery.abandoned.onStop(() => {
    batches.remove(item);
    settleAbandoned(delivery, context);
  });
  batches.add(item);
}

/** Resolves when the handler has ended; the settling of those that failed goes on. */
function handleBatch(
  batch: Item[],
  call: (messages: ReceivedMessage[]) => unknown,
  context: GroupContext,
): Promise<void> {
  const { group } = context.settings;
  const ids = batch.map(({ envelope }) => envelope.id);
  const { stop, work } = newCall(context.settings, ids, context.log);
  for (const { delivery } of batch) delivery.abandoned.onStop(undefined);
  const messages = batch.map(
    ({ delivery, envelope, data, version }) =>
      new ReceivedMessage(delivery.original, { envelope, data, version, group, stop, work }),
  );
  return new Promise((resolve) => {
    callHandler({
      call: () => call(messages),
      stop,
      work,
      // All of a batch are out on one channel, and are lost together.
      abandoned: batch[0]?.delivery.abandoned ?? new Stop(),
      limits: context.limits,
      ended(end) {
        settleBatch(batch, errorsOf(end, messages), context);
        resolve();
      },
    });
  });
}

/** The error of each message in turn, `undefined` for those that were consumed. */
type Errors = ({ error: unknown } | undefined)[];

function errorsOf(end: CallEnd, messages: readonly Message[]): Errors {
  if ('error' in end) return messages.map(() => end);
  try {
    return errorsIn(end.result, messages);
  } catch (error) {
    // Which ones were meant nobody knows, so none of them counts as consumed.
    return messages.map(() => ({ error }));
  }
}

/** @throws Error for a result that does not say which messages failed */
function errorsIn(result: unknown, messages: readonly Message[]): Errors {
  const errors: Errors = messages.map(() => undefined);
  if (typeof result !== 'object' || result === null || !('failed' in result)) return errors;
  const { failed } = result;
  if (failed === undefined) return errors;
  if (!Array.isArray(failed)) {
    const said = `failed as ${textOfError(failed)}`;
    throw new Error(`the handler returned ${said}, which must be a list of { message, error }`);
  }
  for (const entry of failed as BatchOutcome['failed']) {
    const index = messages.indexOf(entry?.message);
    if (index === -1) {
      const id = textOfError(entry?.message?.id);
      throw new Error(`the handler returned ${id} as failed, which is not of its batch`);
    }
    errors[index] = { error: entry.error };
  }
  return errors;
}

function settleBatch(batch: readonly Item[], errors: Errors, context: GroupContext): void {
  const isAbandoned = batch.some(({ delivery }) => delivery.abandoned.isStopped);
  batch.forEach(({ delivery, envelope }, index) => {
    const failed = errors[index];
    if (isAbandoned) settleAbandoned(delivery, context);
    else if (failed === undefined) settleConsumed(delivery, envelope, context);
    else void settleFailed(delivery, failureOf(failed.error, envelope, context), context);
  });
}
