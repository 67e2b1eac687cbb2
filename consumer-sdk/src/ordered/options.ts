import { type FieldError, ORDERING_SLOTS } from '@escrowmq/protocol';

/** How a consumer group consumes a topic whose messages have ordering keys. */
export interface OrderedOptions {
  /**
   * Queues that share the keys among them, 1 to 32; each is consumed by one instance at a time. The
   * first subscription of the group settles the number for all, and RabbitMQ refuses another: with
   * one, messages of a key would lie in two queues. Take as many as there may ever be instances.
   * @default 8
   */
  partitions?: number;
}

export type OrderedSettings = Required<OrderedOptions>;

/** Twice the instances of most services, and quick to declare. */
const PARTITIONS_DEFAULT = 8;

/**
 * Eight attempts in six minutes: past a restart of whatever the handler needs. Shorter than without
 * order, because all that follow on the key wait as long.
 */
export const ORDERED_RETRY_DELAYS_MS_DEFAULT = [
  1_000, 5_000, 15_000, 30_000, 60_000, 120_000, 120_000,
];

/**
 * A message that is retried in its place stays unacknowledged all the time, and after 30 minutes
 * RabbitMQ closes the channel over it; the rest is for the dead letter.
 */
export const IN_PLACE_MS_MAX = 25 * 60 * 1000;

export function orderedSettings(options: OrderedOptions): OrderedSettings {
  return { partitions: options.partitions ?? PARTITIONS_DEFAULT };
}

/** What is wrong with the options of an ordered subscription, beyond what is wrong with any. */
export function orderedProblems(
  options: unknown,
  timing: { retryDelaysMs: readonly number[]; handlerTimeoutMs: number },
): FieldError[] {
  if (typeof options !== 'object' || options === null) {
    return [{ path: 'ordered', message: 'must be an object, such as { partitions: 8 }' }];
  }
  const problems: FieldError[] = [];
  for (const name of Object.keys(options)) {
    if (name !== 'partitions') {
      problems.push({ path: `ordered.${name}`, message: 'is not an option; partitions is' });
    }
  }
  const { partitions } = orderedSettings(options);
  if (!Number.isInteger(partitions) || partitions < 1 || partitions > ORDERING_SLOTS) {
    const message = `must be a whole number from 1 to ${ORDERING_SLOTS}, got ${String(partitions)}`;
    problems.push({ path: 'ordered.partitions', message });
  }
  const inPlaceMs = inPlaceMsMax(timing);
  if (inPlaceMs > IN_PLACE_MS_MAX) {
    problems.push({
      path: 'retryDelaysMs',
      message:
        `take ${inPlaceMs} ms with handlerTimeoutMs for each attempt; an ordered group retries ` +
        `in place and can wait for ${IN_PLACE_MS_MAX} ms in all`,
    });
  }
  return problems;
}

function inPlaceMsMax(timing: {
  retryDelaysMs: readonly number[];
  handlerTimeoutMs: number;
}): number {
  const { retryDelaysMs, handlerTimeoutMs } = timing;
  const pausesMs = retryDelaysMs.reduce((sum, delayMs) => sum + delayMs, 0);
  return pausesMs + (retryDelaysMs.length + 1) * handlerTimeoutMs;
}
