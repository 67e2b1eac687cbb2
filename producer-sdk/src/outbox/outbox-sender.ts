import type { LocalDatabase } from '@escrowmq/database';
import { type Coalescer, createCoalescer, isEscrowError, LIMITS } from '@escrowmq/protocol';
import type { Operation } from '../client/operation-json.js';
import type { Operations } from '../client/operations.js';
import type { Logger } from '../logger.js';
import { markSent } from './outbox-table.js';

/**
 * Sends what a transaction of this process has just committed into its outbox, so that it need not
 * wait for a relay. It may leave off anywhere: the row is durable, and a relay has it from then on.
 */
export interface OutboxSender {
  /** Returns at once. */
  send(database: LocalDatabase<unknown>, operation: Operation): void;
}

export interface OutboxSenderDeps {
  operations: Operations;
  /** Takes over a promise that nobody waits for; `close` does. */
  runInBackground(work: Promise<void>): void;
  logger: Logger;
}

/** A broker that restarts quickly is back by then; for a longer time the relay has the rows. */
const SEND_MS_MAX = 2_000;

/** Four full batches: more would wait for a broker that is slow, while a relay could send them. */
const UNDER_WAY_MAX = 4 * LIMITS.operationsPerBatchMax;

/** While no broker answers, the relay alone tries: it has the rows, and one who asks is enough. */
const REST_MS = 1_000;

export function createOutboxSender(deps: OutboxSenderDeps): OutboxSender {
  const { operations, logger } = deps;
  const marks = new WeakMap<object, Coalescer<string, undefined>>();
  let underWay = 0;
  let restsUntil = 0;

  async function send(database: LocalDatabase<unknown>, operation: Operation): Promise<void> {
    const { id } = operation;
    try {
      await operations.run(operation, SEND_MS_MAX);
    } catch (error) {
      left(id, error);
      return;
    }
    try {
      await marksOf(database).call(id);
    } catch (error) {
      logger.warn(
        { transactionId: id, error },
        'sent, but not marked as sent in the outbox: a relay sends it once more, under the same id',
      );
    }
  }

  function left(transactionId: string, error: unknown): void {
    const fields = { transactionId, error };
    if (isEscrowError(error) && !error.retryable) {
      logger.error(fields, 'the broker refused what a transaction committed into the outbox');
      return;
    }
    // What was under way with it fails as well; once said is enough.
    if (performance.now() < restsUntil) return;
    restsUntil = performance.now() + REST_MS;
    logger.warn(fields, 'committed into the outbox, broker not told: a relay will send it');
  }

  /** Many transactions mark their rows in one statement. */
  function marksOf(database: LocalDatabase<unknown>): Coalescer<string, undefined> {
    const known = marks.get(database);
    if (known !== undefined) return known;
    const made = createCoalescer<string, undefined>({
      async flush(ids) {
        await markSent(database, ids);
        return ids.map(() => undefined);
      },
      batchMax: LIMITS.operationsPerBatchMax,
      // Bounded by what is under way.
      waitingMax: Number.POSITIVE_INFINITY,
      refuse: () => new Error('a queue without a limit refused a mark'),
    });
    marks.set(database, made);
    return made;
  }

  return {
    send(database, operation) {
      if (underWay >= UNDER_WAY_MAX || performance.now() < restsUntil) return;
      underWay += 1;
      deps.runInBackground(
        send(database, operation).finally(() => {
          underWay -= 1;
        }),
      );
    },
  };
}
