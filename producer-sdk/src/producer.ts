import assert from 'node:assert/strict';
import {
  BusinessKey,
  BusinessKeyAnswer,
  LIMITS,
  type MessageDataInput,
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
import { uuidv7 } from 'uuidv7';
import { databaseOf, transactionOf } from './adapters/database-of.js';
import type { Mysql2Connection, Mysql2Pool, Mysql2Transaction } from './adapters/mysql2-shape.js';
import { writeCheckContext } from './checks/check-context.js';
import { createBrokerHttp } from './client/broker-http.js';
import {
  idOf,
  type Operation,
  type PrepareOptions,
  prepareOperation,
  type SendOptions,
  sendOperation,
  verdictOperation,
} from './client/operation-json.js';
import { createOperations } from './client/operations.js';
import { Deadline, within } from './deadline.js';
import { createBarrierIdentities } from './local/barrier.js';
import type { LocalDatabase, LocalTransaction } from './local/database.js';
import { type EnlistedTransaction, enlistIn } from './local/enlist.js';
import { escrow } from './local/escrow.js';
import type { HeldMessages } from './local/held-messages.js';
import {
  type LocalWork,
  runTransaction,
  type TransactionInfo,
  type TransactionResult,
} from './local/transaction.js';
import { type ProducerOptions, parseLimit, parseProducerOptions } from './options.js';
import { outbox } from './outbox/outbox.js';
import { linkOutbox } from './outbox/outbox-link.js';
import { createOutboxSender } from './outbox/outbox-sender.js';

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
  /**
   * Answers as soon as the database has committed, and tells the broker in the background.
   * @default false: waits for the broker's answer, at most `verdictTimeoutMs`
   */
  commitInBackground?: boolean;
}

/** Options of `commit`. */
export interface CommitOptions {
  /** `{ number, data }` for every message that has `dataAtCommit: true`. @default none is open */
  messageData?: MessageDataInput[];
}

function prepareOptions(
  messages: MessageInput | MessageInput[],
  { database, commitInBackground, ...rest }: TransactionOptions,
): PrepareOptions {
  return { ...rest, messages: [messages].flat() };
}

function openNumbers(messages: MessageInput[]): number[] {
  return messages.flatMap(({ dataAtCommit }, number) => (dataAtCommit === true ? [number] : []));
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
   * @param options.messageData the data of every message that the prepare left open
   * @throws {EscrowError} STATE_CONFLICT when it was rolled back, with the decision on record in
   *   `details.decision`; TRANSACTION_NOT_FOUND; BROKER_UNREACHABLE
   */
  commit(id: string, options?: CommitOptions): Promise<TransactionAnswer>;
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
   * `database`; the messages go once it has committed.
   *
   * What is thrown means: rolled back, both sides. What may have happened is a result:
   * `{ outcome: 'committed', id, value, acknowledged }` with what the callback returned, or
   * `{ outcome: 'unknown', id, reason, cause }` when COMMIT got no answer and its outcome could not
   * be found out in `settleTimeoutMs`; then the broker's check will decide.
   *
   * @param database a pool of mysql2/promise, or what an adapter made: `fromPrisma(prisma)`
   * @param callback gets the layer's own transaction handle, and `{ id, supplyData }`
   * @throws the callback's own error, unchanged, or the error on COMMIT
   * @throws {EscrowError} BROKER_UNREACHABLE or the broker's refusal; ALREADY_ROLLED_BACK: a check
   *   was faster, start anew; DATABASE_UNAVAILABLE; TRANSACTION_MISUSED: the callback ended the
   *   transaction itself (`details.outcome` says what became of it) or used it wrongly
   * @example
   * const result = await producer.transaction(
   *   pool,
   *   { topic: 'user', routingKey: 'registered', data },
   *   (tx) => tx.execute('insert into user (id, phone) values (?, ?)', [userId, phone]),
   * );
   * if (result.outcome === 'unknown') return response.status(202).json({ id: result.id });
   */
  transaction<C extends Mysql2Connection, T>(
    database: Mysql2Pool<C>,
    messages: MessageInput | MessageInput[],
    callback: (tx: Mysql2Transaction<C>, info: TransactionInfo) => Promise<T>,
    options?: TransactionOptions,
  ): Promise<TransactionResult<T>>;
  transaction<Tx, T>(
    database: LocalDatabase<Tx>,
    messages: MessageInput | MessageInput[],
    callback: (tx: Tx, info: TransactionInfo) => Promise<T>,
    options?: TransactionOptions,
  ): Promise<TransactionResult<T>>;
  /**
   * Adds messages to a transaction that you opened yourself and will end yourself. Await it before
   * your COMMIT, and call `settle` after it.
   *
   * @param transaction what an adapter made of your open transaction: `fromKnex(trx)`
   * @throws {EscrowError} TRANSACTION_MISUSED when none is open on that connection; BROKER_UNREACHABLE
   *   or the broker's refusal, DATABASE_UNAVAILABLE, INVALID_CONFIGURATION without the barrier table:
   *   roll back then
   * @example
   * const escrow = await producer.enlist(fromKnex(trx), { topic: 'user', data });
   * await trx('user').insert(user);
   * await escrow.verify();
   * await trx.commit();
   * const { outcome } = await escrow.settle(fromKnex(knex));
   */
  enlist(
    transaction: LocalTransaction,
    messages: MessageInput | MessageInput[],
    options?: TransactionOptions,
  ): Promise<EnlistedTransaction>;
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
  const verdict = (op: 'commit' | 'rollback', id: string, messageData?: MessageDataInput[]) =>
    operations.run(verdictOperation(op, id, messageData), verdictTimeoutMs);
  const runInBackground = (work: Promise<void>) => void track(() => work);
  const identities = createBarrierIdentities(settings.connectionTimeoutMs);

  // What is no message at all is refused later, with what is wrong.
  const isOutbox = ({ messages }: { messages: (MessageInput | undefined)[] }) =>
    messages.length > 0 &&
    messages.every((message) => message?.topic && settings.isOutboxTopic(message.topic));
  const outboxSender = createOutboxSender({ operations, runInBackground, logger });

  function heldByBroker(prepared: PrepareOptions): HeldMessages {
    const id = uuidv7();
    const operation = prepareOperation(producerGroup, { ...prepared, id });
    return escrow({
      id,
      openNumbers: openNumbers(prepared.messages),
      prepare: () => prepare(operation),
      commit: (messageData) => verdict('commit', id, messageData),
      rollback: () => verdict('rollback', id),
      runInBackground,
      logger,
    });
  }

  function heldInOutbox(prepared: PrepareOptions, database?: LocalDatabase<unknown>): HeldMessages {
    return outbox({
      id: uuidv7(),
      producerGroup,
      prepared,
      openNumbers: openNumbers(prepared.messages),
      sender: outboxSender,
      ...(database === undefined ? {} : { database }),
    });
  }

  const telling = (waitForCommit: boolean) => ({
    logger,
    runInBackground,
    waitForCommit,
    limits: settings,
  });

  async function transaction<Tx, T>(
    database: LocalDatabase<Tx>,
    prepared: PrepareOptions,
    callback: LocalWork<Tx, T>['callback'],
    { database: name, commitInBackground = false }: TransactionOptions,
  ): Promise<TransactionResult<T>> {
    if (isOutbox(prepared)) {
      const messages = heldInOutbox(prepared, database);
      return runTransaction(telling(false), { database, messages, callback });
    }
    const checkContext = writeCheckContext({
      ...(name === undefined ? {} : { database: name }),
      barrier: identities.known(database) ?? (await identities.of(database)),
    });
    const messages = heldByBroker({ ...prepared, checkContext });
    return runTransaction(telling(!commitInBackground), { database, messages, callback });
  }

  function enlist(
    transaction: LocalTransaction,
    prepared: PrepareOptions,
    { database: name, commitInBackground = false }: TransactionOptions,
  ): Promise<EnlistedTransaction> {
    if (isOutbox(prepared)) return enlistIn(telling(false), transaction, heldInOutbox(prepared));
    const messages = heldByBroker(
      name === undefined ? prepared : { ...prepared, checkContext: name },
    );
    return enlistIn(telling(!commitInBackground), transaction, messages);
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

  const producer: Producer = {
    prepare: (request) => start(() => prepare(prepareOperation(producerGroup, request))),
    commit: (id, options = {}) => start(() => verdict('commit', id, options.messageData)),
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
    transaction: <Tx, T>(
      database: LocalDatabase<Tx> | Mysql2Pool,
      messages: MessageInput | MessageInput[],
      callback: LocalWork<Tx, T>['callback'],
      options: TransactionOptions = {},
    ) =>
      start(async () => {
        const found = databaseOf(database) as LocalDatabase<Tx>;
        return transaction(found, prepareOptions(messages, options), callback, options);
      }),
    enlist: (given, messages, options = {}) =>
      start(async () => enlist(transactionOf(given), prepareOptions(messages, options), options)),
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
  linkOutbox(producer, { http, settings });
  return producer;
}
