import type { LocalDatabase } from '@escrowmq/database';
import type { CheckAnswer, CheckRequest, TransactionAnswer } from '@escrowmq/protocol';
import { createCheckDecider } from '../../producer-sdk/src/checks/check-decider.js';
import type { BrokerHttp } from '../../producer-sdk/src/client/broker-http.js';
import {
  prepareOperation,
  verdictOperation,
} from '../../producer-sdk/src/client/operation-json.js';
import { createOperations } from '../../producer-sdk/src/client/operations.js';
import { escrow } from '../../producer-sdk/src/local/escrow.js';
import type { HeldMessages } from '../../producer-sdk/src/local/held-messages.js';
import {
  runTransaction,
  type TransactionResult,
} from '../../producer-sdk/src/local/transaction.js';
import type { Logger } from '../../producer-sdk/src/logger.js';
import { parseProducerOptions } from '../../producer-sdk/src/options.js';
import type { MemoryDatabase, MemoryTx } from './memory-database.js';
import type { Mistakes } from './mistakes.js';
import { brokenDecider, brokenMessages } from './mistakes.js';
import { type PlannedTransaction, PRODUCER_GROUP } from './plan.js';
import type { Process, Scheduler } from './scheduler.js';

/*
 * One life of a producer: the shipped SDK below `createProducer`, which only adds sockets, ids and
 * tracing.
 */
export interface ProducerOptions {
  scheduler: Scheduler;
  process: Process;
  database: MemoryDatabase;
  http: BrokerHttp;
  mistakes: Mistakes;
  /** Told of each answer of the broker that says yes. */
  onAcknowledged(op: 'prepare' | 'commit', id: string): void;
}

export interface ProducerNode {
  transact(transaction: PlannedTransaction): Promise<TransactionResult<void>>;
  check(request: CheckRequest): Promise<CheckAnswer>;
  /** Verdicts that nobody waits for. */
  readonly underWay: number;
}

const SETTINGS = parseProducerOptions({
  brokers: ['http://broker'],
  producerGroup: PRODUCER_GROUP,
});

export function createProducerNode(options: ProducerOptions): ProducerNode {
  const { scheduler, process, mistakes } = options;
  const database = options.database.reachedFrom(process);
  const operations = createOperations(options.http, SETTINGS);
  const logger = loggerOf(options);
  const decider = createCheckDecider({ database, logger });
  const decide = mistakes.checkOnlyLooks ? brokenDecider(options.database) : decider.decide;
  let underWay = 0;

  function runInBackground(work: Promise<void>): void {
    underWay += 1;
    void work.finally(() => {
      underWay -= 1;
    });
  }

  async function acknowledged(
    op: 'prepare' | 'commit',
    call: Promise<TransactionAnswer>,
  ): Promise<TransactionAnswer> {
    const answer = await call;
    options.onAcknowledged(op, answer.id);
    return answer;
  }

  function held({ id, topic, data }: PlannedTransaction): HeldMessages {
    const messages = data.map((value) => ({ topic, routingKey: 'registered', data: value }));
    const prepare = prepareOperation(SETTINGS, { id, messages });
    const { prepareTimeoutMs, verdictTimeoutMs } = SETTINGS;
    const messagesOfBroker = escrow({
      id,
      open: [],
      size: { bytes: prepare.bytes, bytesMax: SETTINGS.transactionBytesMax },
      prepare: () => acknowledged('prepare', operations.run(prepare, prepareTimeoutMs)),
      commit: () =>
        acknowledged('commit', operations.run(verdictOperation('commit', id), verdictTimeoutMs)),
      rollback: () => operations.run(verdictOperation('rollback', id), verdictTimeoutMs),
      runInBackground,
      logger,
    });
    return mistakes.rollsBackAfterAmbiguousCommit
      ? brokenMessages(messagesOfBroker)
      : messagesOfBroker;
  }

  return {
    get underWay() {
      return underWay;
    },
    check: (request) => decide(request, decider.answerTimeoutMs),
    transact(planned) {
      const waitForCommit = !planned.commitInBackground;
      const deps = { logger, runInBackground, waitForCommit, limits: SETTINGS };
      return runTransaction(deps, {
        database: database as LocalDatabase<MemoryTx>,
        messages: held(planned),
        async callback(tx) {
          await tx.write(planned.id);
          if (planned.ending === 'throw') throw new Error('the callback fails');
          if (planned.ending === 'commitByMistake') await tx.commitByMistake();
          scheduler.note(process, `callback of ${planned.id} is done`);
        },
      });
    },
  };
}

function loggerOf({ scheduler, process }: ProducerOptions): Logger {
  const log = (fields: Record<string, unknown>, message: string) =>
    scheduler.note(process, `${message} ${fields.reason ?? ''} ${fields.error ?? ''}`);
  return { warn: log, error: log };
}
