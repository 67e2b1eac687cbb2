import assert from 'node:assert/strict';
import {
  BusinessKey,
  BusinessKeyAnswer,
  LIMITS,
  type MessageInput,
  maySettle,
  type OperationTrace,
  type PrepareInput,
  ProducerGroupAnswer,
  type ProducerGroupInput,
  ProducerGroupRequest,
  parse,
  type TransactionAnswer,
  TransactionView,
} from '@escrowmq/protocol';
import type { Pool } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import { createBrokerHttp } from './broker-http.js';
import { Deadline, within } from './deadline.js';
import type { TransactionConnection } from './local-transaction.js';
import {
  idOf,
  type Operation,
  type PrepareOptions,
  prepareOperation,
  type SendOptions,
  sendOperation,
  verdictOperation,
} from './operation-json.js';
import { createOperations } from './operations.js';
import { type ProducerOptions, parseLimit, parseProducerOptions } from './options.js';
import { runTransaction } from './transaction.js';

/** Options of `transaction`, beside its messages. */
export interface TransactionOptions
  extends Pick<PrepareInput, 'businessKeys' | 'expects' | 'checkAfterMs'> {
  /**
   * Which database the pool leads to, as named in the check handler's `databases`. It travels with
   * every check. @default none: the check handler has one `database`
   */
  database?: string;
  /** W3C trace context that the messages carry to their consumers. @default none */
  trace?: OperationTrace;
}

export interface Producer {
  /**
   * Stores half messages at the broker: durable, and not sent before `commit`. Without `id` one is
   * made here, so that a lost call is repeated under the same id.
   *
   * @returns `{ id, state, decision? }`
   * @throws {EscrowError} CONTENT_CONFLICT when the id has other content, BROKER_UNREACHABLE when
   *   no broker answered in time (it may have arrived), or the code of the field that is wrong
   */
  prepare(options: PrepareOptions): Promise<TransactionAnswer>;
  /**
   * Releases the messages of a transaction. Safe to repeat.
   *
   * @throws {EscrowError} STATE_CONFLICT when it was rolled back, with the decision on record in
   *   `details.decision`; TRANSACTION_NOT_FOUND; BROKER_UNREACHABLE
   */
  commit(id: string): Promise<TransactionAnswer>;
  /** Drops the messages of a transaction. Safe to repeat. @throws {EscrowError} like `commit` */
  rollback(id: string): Promise<TransactionAnswer>;
  /** State, decision, checks and receipts. @throws {EscrowError} TRANSACTION_NOT_FOUND, BROKER_UNREACHABLE */
  query(id: string): Promise<TransactionView>;
  /** Sends messages that hang on no local transaction: prepare and commit in one step. */
  send(options: SendOptions): Promise<TransactionAnswer>;
  /**
   * Waits until nothing on a business key can settle by itself any more, or until `waitMs` have
   * passed; look at `settled`. What is parked, or only misses groups that gave up, is not waited for.
   *
   * @param options.waitMs milliseconds, any number of long polls @default 30000
   */
  waitForBusinessKey(key: string, options?: { waitMs?: number }): Promise<BusinessKeyAnswer>;
  /**
   * Registers this producer group, or changes it. `signingSecret` is in the answer when the group
   * was created or `rotateSecret` was set. A call with `rotateSecret` is never repeated.
   */
  registerGroup(options: ProducerGroupInput): Promise<ProducerGroupAnswer>;
  /**
   * A local transaction and its messages, both or neither. Runs `callback` in a transaction of
   * `pool` and returns its result once the database has committed.
   *
   * @returns the callback's result; the broker is told as well, or will ask
   * @throws the callback's own error, unchanged, after rolling back both
   * @throws {EscrowError} BROKER_UNREACHABLE or the broker's refusal: rolled back;
   *   ALREADY_ROLLED_BACK: a check was faster, start anew; OUTCOME_UNKNOWN: COMMIT failed and the
   *   database can't be asked, the check will decide; TRANSACTION_MISUSED: the callback ended the
   *   transaction itself, `details.outcome` says what became of it
   * @example
   * await producer.transaction(pool, { topic: 'user', routingKey: 'registered', data }, async (tx) => {
   *   await tx.execute('insert into user (id, phone) values (?, ?)', [userId, phone]);
   * });
   */
  transaction<T>(
    pool: Pool,
    messages: MessageInput | MessageInput[],
    callback: (tx: TransactionConnection) => Promise<T>,
    options?: TransactionOptions,
  ): Promise<T>;
  /** Waits for what is under way, at most `closeTimeoutMs`, and closes the connections. */
  close(): Promise<void>;
}

/** A long poll is answered a little after its wait: the broker reads the state once more. */
const LONG_POLL_SLACK_MS = 2_000;
/** Between polls that came back early, so that a broker which can't wait is not flooded. */
const POLL_PAUSE_MS = 200;

/**
 * A producer's connection to the broker; make one per process and producer group.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION or INVALID_NAME
 * @example
 * const producer = createProducer({ brokers: ['http://127.0.0.1:7171'], producerGroup: 'accounts' });
 */
export function createProducer(options: ProducerOptions): Producer {
  const settings = parseProducerOptions(options);
  const { producerGroup, prepareTimeoutMs, verdictTimeoutMs, requestTimeoutMs, logger } = settings;
  const http = createBrokerHttp(settings);
  const operations = createOperations(http, settings);
  let underWay = 0;
  let isClosed = false;
  let allDone = () => {};

  /** Keeps `close` waiting for it; whoever called it gets its error. */
  async function track<T>(work: () => Promise<T>): Promise<T> {
    underWay += 1;
    try {
      return await work();
    } finally {
      underWay -= 1;
      if (underWay === 0) allDone();
    }
  }
  const start = <T>(work: () => Promise<T>) =>
    track(() => {
      assert(!isClosed, 'this producer is closed; make a new one');
      return work();
    });

  const prepare = (operation: Operation) => operations.run(operation, prepareTimeoutMs);
  const verdict = (op: 'commit' | 'rollback', id: string) =>
    operations.run(verdictOperation(op, id), verdictTimeoutMs);

  async function transaction<T>(
    pool: Pool,
    prepared: PrepareOptions,
    callback: (tx: TransactionConnection) => Promise<T>,
  ): Promise<T> {
    const id = uuidv7();
    const operation = prepareOperation(producerGroup, { ...prepared, id });
    return runTransaction<T>(
      {
        prepare: () => prepare(operation),
        commit: () => verdict('commit', id),
        rollback: () => verdict('rollback', id),
        runInBackground: (work) => void track(() => work),
        logger,
        limits: settings,
      },
      { id, pool, callback },
    );
  }

  async function waitForBusinessKey(key: string, waitMs: number): Promise<BusinessKeyAnswer> {
    const path = `/v1/business-keys/${encodeURIComponent(parse(BusinessKey, key, 'key'))}`;
    const deadline = new Deadline(parseLimit('waitMs', waitMs));
    for (;;) {
      const pollMs = Math.min(LIMITS.waitMsMax, Math.ceil(deadline.leftMs));
      const limitMs = pollMs + LONG_POLL_SLACK_MS;
      const answer = await http.call(
        {
          method: 'GET',
          path: `${path}?waitMs=${pollMs}`,
          read: (value) => BusinessKeyAnswer.parse(value),
          longPollMs: limitMs,
        },
        Math.max(limitMs, requestTimeoutMs),
      );
      const more = answer.transactions.some(maySettle);
      if (!more || !(await deadline.pause(POLL_PAUSE_MS))) return answer;
    }
  }

  return {
    prepare: (request) => start(() => prepare(prepareOperation(producerGroup, request))),
    commit: (id) => start(() => verdict('commit', id)),
    rollback: (id) => start(() => verdict('rollback', id)),
    query: (id) =>
      start(async () =>
        http.call(
          {
            method: 'GET',
            path: `/v1/transactions/${idOf(id)}`,
            read: (value) => TransactionView.parse(value),
          },
          requestTimeoutMs,
        ),
      ),
    send: (request) =>
      start(() => operations.run(sendOperation(producerGroup, request), requestTimeoutMs)),
    waitForBusinessKey: (key, { waitMs = LIMITS.waitMsMax } = {}) =>
      start(() => waitForBusinessKey(key, waitMs)),
    registerGroup: (request) =>
      start(async () => {
        const parsed = parse(ProducerGroupRequest, request, 'the producer group');
        return http.call(
          {
            method: 'PUT',
            path: `/v1/producer-groups/${producerGroup}`,
            body: JSON.stringify(parsed),
            read: (value) => ProducerGroupAnswer.parse(value),
            repeatable: !parsed.rotateSecret,
          },
          requestTimeoutMs,
        );
      }),
    transaction: (pool, messages, callback, { database, ...rest } = {}) =>
      start(() => {
        const prepared = { ...rest, messages: [messages].flat() };
        const request = database === undefined ? prepared : { ...prepared, checkContext: database };
        return transaction(pool, request, callback);
      }),
    async close() {
      if (isClosed) return;
      isClosed = true;
      // What is still under way when the time is over learns BROKER_UNREACHABLE from its own call.
      if (underWay > 0) {
        const done = new Promise<void>((resolve) => {
          allDone = resolve;
        });
        await within(done, settings.closeTimeoutMs, { error: () => new Error('closing') }).catch(
          () => undefined,
        );
      }
      await http.close();
    },
  };
}
