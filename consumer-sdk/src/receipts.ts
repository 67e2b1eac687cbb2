import { randomUUID } from 'node:crypto';
import {
  type ConsumerReceipt,
  createCoalescer,
  LIMITS,
  RECEIPTS_QUEUE,
  type ReceiptBatch,
} from '@escrowmq/protocol';
import { causeOf } from './cause.js';
import type { Log } from './events.js';
import type { Publisher } from './publisher.js';

/**
 * Receipts on their way to the broker, in batches that form by concurrency alone.
 *
 * `consumed` is best effort: a process that dies here leaves the broker's display behind, nothing
 * else. `failed` is waited for, before the message is acknowledged, because the producer's
 * compensation hangs on it. A receipt sent twice is one receipt: the broker keeps one per message
 * and group.
 */
export interface Receipts {
  consumed(receipt: Receipt): void;
  /** @throws Error when it is not certain that the receipt is in the queue */
  failed(receipt: Receipt): Promise<void>;
  /** Resolves when nothing is on its way any more. */
  idle(): Promise<void>;
}

type Receipt = Omit<ConsumerReceipt, 'kind'>;

/** Twenty full batches; in an alarm nothing moves, and what comes on top is better lost. */
const RECEIPTS_WAITING_MAX = 20 * LIMITS.receiptsPerMessageMax;
/** The second goes over the next channel, when the first was lost with its own. */
const PUBLISH_ATTEMPTS = 2;

export function createReceipts(publisher: Publisher, log: Log): Receipts {
  async function publish(receipts: ConsumerReceipt[]): Promise<void> {
    const batch: ReceiptBatch = { receipts };
    const body = Buffer.from(JSON.stringify(batch));
    const properties = { messageId: randomUUID(), contentType: 'application/json' };
    for (let attempt = 1; ; attempt += 1) {
      try {
        await publisher.publish(RECEIPTS_QUEUE, body, properties);
        return;
      } catch (error) {
        if (attempt === PUBLISH_ATTEMPTS) throw error;
      }
    }
  }

  const coalescer = createCoalescer<ConsumerReceipt, { error: unknown } | undefined>({
    batchMax: LIMITS.receiptsPerMessageMax,
    waitingMax: RECEIPTS_WAITING_MAX,
    refuse: () => new Error(`${RECEIPTS_WAITING_MAX} receipts wait for RabbitMQ already`),
    async flush(receipts) {
      try {
        await publish(receipts);
        return receipts.map(() => undefined);
      } catch (error) {
        const count = receipts.filter(({ kind }) => kind === 'consumed').length;
        if (count > 0) log({ event: 'receiptsLost', count, cause: causeOf(error) });
        return receipts.map(() => ({ error }));
      }
    },
  });

  return {
    consumed(receipt) {
      coalescer
        .call({ ...receipt, kind: 'consumed' })
        .catch((error) => log({ event: 'receiptsLost', count: 1, cause: causeOf(error) }));
    },
    async failed(receipt) {
      const lost = await coalescer.call({ ...receipt, kind: 'failed' });
      if (lost !== undefined) throw lost.error;
    },
    idle: () => coalescer.idle(),
  };
}
