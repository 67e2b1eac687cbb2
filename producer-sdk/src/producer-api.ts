import type {
  LocalDatabase,
  LocalTransaction,
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Transaction,
} from '@escrowmq/database';
import type {
  BusinessKeyAnswer,
  CancelAnswer,
  MessageDataInput,
  MessageInput,
  OperationTrace,
  PrepareInput,
  ProducerGroupAnswer,
  TransactionAnswer,
  TransactionView,
} from '@escrowmq/protocol';
import type { PrepareOptions, SendOptions } from './client/operation-json.js';
import type { EnlistedTransaction } from './local/enlist.js';
import type { TransactionInfo, TransactionResult } from './local/transaction.js';
import type { RegisterGroupOptions } from './register-group.js';

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
  /**
   * Of `transaction`: begun inside the callback of another on the same database, it commits by itself,
   * whatever becomes of that one. @default false: such a one is refused, TRANSACTION_MISUSED
   */
  separate?: boolean;
}

/** Options of `commit`. */
export interface CommitOptions {
  /** `{ number, data }` for every message that has `dataAtCommit: true`. @default none is open */
  messageData?: MessageDataInput[];
}

/** Options of `cancel`. */
export interface CancelOptions {
  /** Numbers of the messages, from 0: all of them or none. @default all that still wait */
  messages?: number[];
  /** Goes on record in the transaction's history, 1 to 500 characters. */
  reason: string;
}

/** A producer's connection to the broker, made by `createProducer`. */
export interface Producer {
  /**
   * Stores half messages at the broker: durable, and not sent before `commit`. Without `id` one is
   * made here, so that a lost call is repeated under the same id.
   *
   * @returns `{ id, state, decision? }`
   * @throws {EscrowError} CONTENT_CONFLICT when the id has other content, BROKER_UNREACHABLE when
   *   no broker answered in time (it may have arrived), or the code of the field that is wrong
   * @example
   * const { id } = await producer.prepare({ messages: [{ topic: 'user', routingKey: 'registered', data }] });
   */
  prepare(options: PrepareOptions): Promise<TransactionAnswer>;
  /**
   * Releases the messages of a transaction. Safe to repeat.
   *
   * @param options.messageData the data of every message that the prepare left open
   * @throws {EscrowError} STATE_CONFLICT when it was rolled back, with the decision on record in
   *   `details.decision`; TRANSACTION_NOT_FOUND; BROKER_UNREACHABLE
   * @example
   * await producer.commit(id);
   */
  commit(id: string, options?: CommitOptions): Promise<TransactionAnswer>;
  /** Drops the messages of a transaction. Safe to repeat. @throws {EscrowError} like `commit` */
  rollback(id: string): Promise<TransactionAnswer>;
  /**
   * Takes back messages with `deliverAt` or `delayMs` of a committed transaction, as long as their
   * time has not come. Safe to repeat.
   *
   * @returns `{ id, state, cancelled }`, with the numbers of all messages that are cancelled by now
   * @throws {EscrowError} MESSAGE_NOT_CANCELLABLE: none was cancelled, and `details.notCancellable`
   *   says why each can't be; TRANSACTION_NOT_FOUND; INVALID_REQUEST; BROKER_UNREACHABLE
   * @example
   * const { id } = await producer.send({ messages: [{ topic: 'order', data, delayMs: 1_800_000 }] });
   * await producer.cancel(id, { reason: 'paid in time' });
   */
  cancel(id: string, options: CancelOptions): Promise<CancelAnswer>;
  /**
   * State, decision, checks, receipts and compensations, and what became of it in each expected
   * group. With `waitMs` it waits until the transaction has settled, is parked, or only misses groups
   * that gave up, or until that long has passed; look at `settled` and at `groups`.
   *
   * @param options.waitMs milliseconds, any number of long polls @default 0: answers at once
   * @throws {EscrowError} TRANSACTION_NOT_FOUND, BROKER_UNREACHABLE
   * @example
   * const { settled, groups } = await producer.query(id, { waitMs: 10_000 });
   */
  query(
    id: string,
    options?: {
      /** Milliseconds to wait, by any number of long polls. @default 0: answers at once */ waitMs?: number;
    },
  ): Promise<TransactionView>;
  /**
   * Sends messages that hang on no local transaction: prepare and commit in one step.
   *
   * @throws {EscrowError} like `prepare`
   * @example
   * await producer.send({ messages: [{ topic: 'order', routingKey: 'reminder', data, delayMs: 60_000 }] });
   */
  send(options: SendOptions): Promise<TransactionAnswer>;
  /**
   * Waits until nothing on a business key can settle by itself any more, or until `waitMs` have
   * passed; look at `settled`. What is parked, or only misses groups that gave up, is not waited for.
   *
   * @param options.waitMs milliseconds, any number of long polls @default 30000
   * @throws {EscrowError} BROKER_UNREACHABLE
   * @example
   * const { settled } = await producer.waitForBusinessKey('phone:13800000000', { waitMs: 5_000 });
   */
  waitForBusinessKey(
    key: string,
    options?: {
      /** Milliseconds to wait, by any number of long polls. @default 30000 */ waitMs?: number;
    },
  ): Promise<BusinessKeyAnswer>;
  /**
   * Registers this producer group, or changes it. Safe to repeat, at every start of a service that
   * gives its own `signingSecret`; the answer has it. Without one a secret is made here, and is in the
   * answer when the group was created with it or `rotateSecret` was set: keep it, it comes once.
   *
   * @param options.signingSecret whsec_ and the base64 of 24 to 64 random bytes, also for the check
   *   handler; `[new, old]` rotates: both sign until `new` is given alone, and `old` for a day more
   * @returns what is registered; `replaced` when it had other endpoints or another secret: two services
   *   that register one group undo each other's settings
   * @throws {EscrowError} CHECK_URL_NOT_ALLOWED, INVALID_REQUEST, BROKER_UNREACHABLE
   * @example
   * await producer.registerGroup({ checkUrls: ['https://…/escrow-check'], signingSecret });
   */
  registerGroup(options: RegisterGroupOptions): Promise<ProducerGroupAnswer>;
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
