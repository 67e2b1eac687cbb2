import { once } from '../../consumer-sdk/src/apply/once.js';
import type { Faults } from './faults.js';
import type { MemoryDatabase, MemoryTx } from './memory-database.js';
import type { Delivery, MemoryRabbit } from './memory-rabbit.js';
import type { Mistakes } from './mistakes.js';
import type { Process, Scheduler } from './scheduler.js';

/*
 * One life of a consumer: the shipped `once` around work that writes down what it was told, and an
 * acknowledgement after it, as a subscription does.
 */
export interface ConsumerOptions {
  scheduler: Scheduler;
  faults: Faults;
  process: Process;
  database: MemoryDatabase;
  rabbit: MemoryRabbit;
  mistakes: Mistakes;
}

const GROUP = 'phone-index';
/** The first retry of a subscription. */
const RETRY_MS = 1_000;
const LIMITS = { connectionTimeoutMs: 30_000, commitTimeoutMs: 10_000 };

export function startConsumer(options: ConsumerOptions): void {
  const { scheduler, faults, process, rabbit, mistakes } = options;
  const database = options.database.reachedFrom(process);

  async function apply({ messageId, body }: Delivery): Promise<void> {
    const work = (tx: MemoryTx) => tx.write(`${messageId} ${body}`);
    if (mistakes.consumerDoesNotDedupe) {
      await database.transaction((open) => work(open.tx), LIMITS);
      return;
    }
    const result = await once(database, { id: messageId, group: GROUP }, work);
    scheduler.note(process, `${messageId} is ${result}`);
  }

  async function consume(message: Delivery): Promise<void> {
    try {
      await apply(message);
    } catch (error) {
      scheduler.note(process, `consuming ${message.messageId} failed: ${error}`);
      const run = () => deliver(message);
      scheduler.after(process, RETRY_MS, { name: 'retry', run });
      return;
    }
    if (faults.strike('an acknowledgement is lost')) deliver(message);
    else rabbit.acknowledge(message);
  }

  function deliver(message: Delivery): void {
    scheduler.park(process, `gets ${message.messageId}`, () => void consume(message));
  }

  rabbit.deliver = deliver;
  // What was not acknowledged in an earlier life comes again.
  for (const message of rabbit.queue) deliver(message);
}
