import { randomUUID } from 'node:crypto';
import {
  type ConsumerReceipt,
  createCoalescer,
  LIMITS,
  RECEIPTS_QUEUE_ARGUMENTS,
  type ReceiptBatch,
} from '@escrowmq/protocol';
import { causedBy } from '../cause.js';
import type { Log } from '../events.js';
import type { Publisher } from '../rabbit/publisher.js';

/**
 * Receipts on their way to the broker, in batches that form by concurrency alone.
 *
 * `consumed` is best effort: a process that dies here leaves the broker's display behind, nothing
 * else. `failed` is waited for, before the message is acknowledged, because the producer's
 * compensation hangs on it. A receipt sent twice is one receipt: the broker keeps one per message
 * and group.
 */
export interface Receipts {
  consumed(queue: string, receipt: Receipt): void;
  /** @throws Error when it is not certain that the receipt is in the queue */
  failed(queue: string, receipt: Receipt): Promise<void>;
  /** Resolves when nothing is on its way any more. */
  idle(): Promise<void>;
}

type Receipt = Omit<ConsumerReceipt, 'kind'>;

interface Item {
  /** Of the store that sent the message. */
  queue: string;
  receipt: ConsumerReceipt;
}

/** Twenty full batches; in an alarm nothing moves, and what comes on top is better lost. */
const RECEIPTS_WAITING_MAX = 20 * LIMITS.receiptsPerMessageMax;
/** The second goes over the next channel, when the first was lost with its own. */
const PUBLISH_ATTEMPTS = 2;

export function createReceipts(publisher: Publisher, log: Log): Receipts {
  async function publish(queue: string, receipts: ConsumerReceipt[]): Promise<void> {
    const batch: ReceiptBatch = { receipts };
    const body = Buffer.from(JSON.stringify(batch));
    const properties = { messageId: randomUUID(), contentType: 'application/json' };
    for (let attempt = 1; ; attempt += 1) {
      try {
        // The broker declares it with the same arguments; whoever comes first makes it.
        await publisher.declare(queue, RECEIPTS_QUEUE_ARGUMENTS);
        await publisher.publish(queue, body, properties);
        return;
      } catch (error) {
        if (attempt === PUBLISH_ATTEMPTS) throw error;
      }
    }
  }

  type Result = { error: unknown } | undefined;

  /** One batch, to one store. */
  async function send(queue: string, receipts: ConsumerReceipt[]): Promise<Result> {
    try {
      await publish(queue, receipts);
      return undefined;
    } catch (error) {
      const count = receipts.filter(({ kind }) => kind === 'consumed').length;
      if (count > 0) log({ event: 'receiptsLost', count, ...causedBy(error) });
      return { error };
    }
  }

  const coalescer = createCoalescer<Item, Result>({
    batchMax: LIMITS.receiptsPerMessageMax,
    waitingMax: RECEIPTS_WAITING_MAX,
    refuse: () => new Error(`${RECEIPTS_WAITING_MAX} receipts wait for RabbitMQ already`),
    async flush(items) {
      // Almost always one: a consumer of several stores is rare.
      const queues = [...new Set(items.map(({ queue }) => queue))];
      const results = new Map<string, Result>();
      for (const queue of queues) {
        const its = items.filter((item) => item.queue === queue).map(({ receipt }) => receipt);
        results.set(queue, await send(queue, its));
      }
      return items.map(({ queue }) => results.get(queue));
    },
  });

  return {
    consumed(queue, receipt) {
      coalescer
        .call({ queue, receipt: { ...receipt, kind: 'consumed' } })
        .catch((error) => log({ event: 'receiptsLost', count: 1, ...causedBy(error) }));
    },
    async failed(queue, receipt) {
      const lost = await coalescer.call({ queue, receipt: { ...receipt, kind: 'failed' } });
      if (lost !== undefined) throw lost.error;
    },
    idle: () => coalescer.idle(),
  };
}
