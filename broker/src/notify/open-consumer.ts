import { type Consumer, type ConsumerEvent, createConsumer } from '@escrowmq/consumer';

/** Short of a pass or two: what can not start now is started again by a later one. */
const START_TIMEOUT_MS = 10_000;

/** The one consumer of all webhooks of this instance. Connects with its first subscription. */
export const openConsumer = (rabbitmq: string, logger: (event: ConsumerEvent) => void): Consumer =>
  createConsumer({ rabbitmq, logger, startTimeoutMs: START_TIMEOUT_MS });
