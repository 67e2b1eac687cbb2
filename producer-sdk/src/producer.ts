import assert from 'node:assert/strict';
import type { LocalDatabase, LocalTransaction, Mysql2Pool } from '@escrowmq/database';
import { databaseOf, refuseNested, transactionOf, within } from '@escrowmq/database';
import {
  BusinessKey,
  BusinessKeyAnswer,
  CancelAnswer,
  CancelRequest,
  EscrowError,
  kindOf,
  LIMITS,
  type MessageDataInput,
  type MessageInput,
  maySettle,
  mayStillSettle,
  optionNames,
  parse,
  placeOf,
  refuseUnknown,
  requireFunction,
  TransactionView,
  textOfError,
} from '@escrowmq/protocol';
import { uuidv7 } from 'uuidv7';
import { writeCheckContext } from './checks/check-context.js';
import { createBrokerHttp } from './client/broker-http.js';
import { waitFor } from './client/long-polls.js';
import {
  commitWithData,
  idOf,
  type Operation,
  type PrepareOptions,
  prepareOperation,
  type SendOptions,
  sendOperation,
  verdictOperation,
} from './client/operation-json.js';
import { createOperations } from './client/operations.js';
import { traceOperations } from './client/traced-operations.js';
import { after, fitMessageData, fitRequest } from './client/typed-messages.js';
import { createBarrierIdentities } from './local/barrier.js';
import { type EnlistedTransaction, enlistIn } from './local/enlist.js';
import { escrow } from './local/escrow.js';
import type { HeldMessages, OpenMessage } from './local/held-messages.js';
import { type LocalWork, runTransaction, type TransactionResult } from './local/transaction.js';
import { PRODUCER_OPTIONS, type ProducerOptions, parseProducerOptions } from './options.js';
import { outbox } from './outbox/outbox.js';
import { linkOutbox } from './outbox/outbox-link.js';
import { createOutboxSender } from './outbox/outbox-sender.js';
import type { Producer, TransactionOptions } from './producer-api.js';
import { registerGroup } from './register-group.js';

/**
 * A producer's connection to the broker; make one per process and producer group.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION or INVALID_NAME
 * @example
 * const producer = createProducer({ brokers: ['http://127.0.0.1:7171'], producerGroup: 'accounts' });
 */
export function createProducer(options: ProducerOptions): Producer {
  refuseUnknown(options, PRODUCER_OPTIONS, 'createProducer');
  const settings = parseProducerOptions(options);
  const { producerGroup, prepareTimeoutMs, verdictTimeoutMs, requestTimeoutMs, logger } = settings;
  const http = createBrokerHttp(settings);
  const operations = createOperations(http, settings);
  const traced = traceOperations(operations, settings);
  let underWay = 0;
  let isClosed = false;
  let allDone = () => {};

  /** Keeps `close` waiting for it; whoever called it gets its error. */
  async function track<T>(work: () => T | Promise<T>): Promise<T> {
    underWay += 1;
    try {
      return await work();
    } finally {
      underWay -= 1;
      if (underWay === 0) allDone();
    }
  }
  const start = <T>(work: () => T | Promise<T>) =>
    track(() => {
      assert(!isClosed, 'this producer is closed; make a new one');
      return work();
    });

  const prepare = (operation: Operation, { messages, trace }: PrepareOptions) =>
    traced.run(operation, { timeoutMs: prepareTimeoutMs, messages, trace });
  const verdict = (operation: Operation, messages: MessageInput[] = []) =>
    traced.run(operation, { timeoutMs: verdictTimeoutMs, messages });
  /** Of schemas; they stand before the call, which has a limit of its own. */
  const schemaLimit = { limitMs: prepareTimeoutMs, option: 'prepareTimeoutMs' };
  const commitOperation = (id: string, messageData: MessageDataInput[] = []) =>
    messageData.length === 0
      ? verdictOperation('commit', id)
      : commitWithData(id, messageData, settings);
  /** Nobody hears what it rejects with, and that would end the process. */
  const runInBackground = (work: Promise<void>) =>
    void track(() => work).catch((error: unknown) => {
      logger.error({ error }, 'work in the background failed; a check or a relay does the rest');
    });
  const identities = createBarrierIdentities(settings.connectionTimeoutMs);

  // What is no message at all is refused later, with what is wrong.
  const isOutbox = ({ messages }: { messages: (MessageInput | undefined)[] }) =>
    messages.length > 0 &&
    messages.every((message) => message?.topic && settings.isOutboxTopic(message.topic));
  const outboxSender = createOutboxSender({ operations, runInBackground, logger });

  function heldByBroker(prepared: PrepareOptions): HeldMessages {
    const id = uuidv7();
    const operation = prepareOperation(settings, { ...prepared, id });
    return escrow({
      id,
      open: openMessages(prepared.messages),
      size: { bytes: operation.bytes, bytesMax: settings.transactionBytesMax },
      prepare: () => prepare(operation, prepared),
      commit: (messageData) => verdict(commitOperation(id, messageData), prepared.messages),
      rollback: () => verdict(verdictOperation('rollback', id), prepared.messages),
      runInBackground,
      logger,
    });
  }

  function heldInOutbox(
    prepared: PrepareOptions,
    database?: LocalDatabase<unknown>,
  ): Promise<HeldMessages> {
    const id = uuidv7();
    return traced.prepareHere({ id, messages: prepared.messages }, (trace) =>
      outbox({
        id,
        writing: settings,
        prepared: trace === undefined ? prepared : { trace, ...prepared },
        open: openMessages(prepared.messages),
        sender: outboxSender,
        ...(database === undefined ? {} : { database }),
      }),
    );
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
      const messages = await heldInOutbox(prepared, database);
      return runTransaction(telling(false), { database, messages, callback });
    }
    const checkContext = writeCheckContext({
      ...(name === undefined ? {} : { database: name }),
      barrier: identities.known(database) ?? (await identities.of(database)),
    });
    const messages = heldByBroker({ ...prepared, checkContext });
    return runTransaction(telling(!commitInBackground), { database, messages, callback });
  }

  async function enlist(
    transaction: LocalTransaction,
    prepared: PrepareOptions,
    { database: name, commitInBackground = false }: TransactionOptions,
  ): Promise<EnlistedTransaction> {
    if (isOutbox(prepared)) {
      return enlistIn(telling(false), transaction, await heldInOutbox(prepared));
    }
    const messages = heldByBroker(
      name === undefined ? prepared : { ...prepared, checkContext: name },
    );
    return enlistIn(telling(!commitInBackground), transaction, messages);
  }

  const waitForBusinessKey = (key: string, waitMs: number): Promise<BusinessKeyAnswer> =>
    waitFor(
      http,
      {
        path: `/v1/business-keys/${encodeURIComponent(parse(BusinessKey, key, 'key'))}`,
        read: (value) => BusinessKeyAnswer.parse(value),
        mayChange: ({ transactions }) => transactions.some(maySettle),
      },
      { waitMs, requestTimeoutMs },
    );

  function query(id: string, waitMs: number): Promise<TransactionView> {
    const path = `/v1/transactions/${idOf(id)}`;
    const read = (value: unknown) => TransactionView.parse(value);
    if (waitMs === 0) return http.call({ method: 'GET', path, read }, requestTimeoutMs);
    return waitFor(http, { path, read, mayChange: mayStillSettle }, { waitMs, requestTimeoutMs });
  }

  const producer: Producer = {
    prepare: (request) =>
      start(() => {
        refuseUnknown(request, PREPARE_OPTIONS, 'prepare');
        return after(fitRequest(request, schemaLimit), (fit) =>
          prepare(prepareOperation(settings, fit), fit),
        );
      }),
    commit: (id, options = {}) =>
      start(async () => {
        refuseUnknown(options, ['messageData'], 'commit');
        const { messageData = [] } = options;
        return after(fitMessageData(messageData, schemaLimit), (fit) =>
          verdict(commitOperation(id, fit)),
        );
      }),
    rollback: (id) => start(() => verdict(verdictOperation('rollback', id))),
    cancel: (id, options) =>
      start(async () => {
        refuseUnknown(options, CANCEL_OPTIONS, 'cancel');
        return http.call(
          {
            method: 'POST',
            path: `/v1/transactions/${idOf(id)}/cancel`,
            body: JSON.stringify(parse(CancelRequest, options, 'the cancel')),
            read: (value) => CancelAnswer.parse(value),
          },
          requestTimeoutMs,
        );
      }),
    query: (id, options = {}) => start(async () => query(id, waitMsOf(options, 'query') ?? 0)),
    send: (request) =>
      start(() => {
        refuseUnknown(request, SEND_OPTIONS, 'send');
        return after(fitRequest(request, schemaLimit), (fit) => {
          const { messages, trace } = fit;
          const operation = sendOperation(settings, fit);
          return traced.run(operation, { timeoutMs: requestTimeoutMs, messages, trace });
        });
      }),
    waitForBusinessKey: (key, options = {}) =>
      start(async () =>
        waitForBusinessKey(key, waitMsOf(options, 'waitForBusinessKey') ?? LIMITS.waitMsMax),
      ),
    registerGroup: (request) =>
      start(() => registerGroup({ http, logger, producerGroup, requestTimeoutMs }, request)),
    transaction: <Tx, T>(
      database: LocalDatabase<Tx> | Mysql2Pool,
      messages: MessageInput | MessageInput[],
      callback: LocalWork<Tx, T>['callback'],
      options: TransactionOptions = {},
    ) =>
      start(async () => {
        refuseUnknown(options, TRANSACTION_OPTIONS, 'transaction');
        requireFunction(callback, 'callback', 'transaction');
        const found = databaseOf(database) as LocalDatabase<Tx>;
        if (options.separate !== true) refuseNested(found as LocalDatabase<never>, 'transaction');
        const prepared = await fitRequest(prepareOptions(messages, options), schemaLimit);
        return transaction(found, prepared, callback, options);
      }),
    enlist: (given, messages, options = {}) =>
      start(async () => {
        refuseUnknown(options, TRANSACTION_OPTIONS, 'enlist');
        const open = transactionOf(given);
        const prepared = await fitRequest(prepareOptions(messages, options), schemaLimit);
        return enlist(open, prepared, options);
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
  linkOutbox(producer, { http, settings });
  return producer;
}

const SEND_OPTIONS = optionNames<SendOptions>({
  id: true,
  businessKeys: true,
  expects: true,
  messages: true,
  trace: true,
});

const PREPARE_OPTIONS = [...SEND_OPTIONS, 'checkAfterMs', 'checkContext'];

const CANCEL_OPTIONS = optionNames<CancelRequest>({
  messages: true,
  reason: true,
  operator: true,
});

const TRANSACTION_OPTIONS = optionNames<TransactionOptions>({
  businessKeys: true,
  expects: true,
  checkAfterMs: true,
  database: true,
  trace: true,
  commitInBackground: true,
  separate: true,
});

function waitMsOf(options: { waitMs?: number }, where: string): number | undefined {
  refuseUnknown(options, ['waitMs'], where);
  const { waitMs } = options;
  if (waitMs === undefined || (typeof waitMs === 'number' && waitMs >= 0)) return waitMs;
  throw new EscrowError(
    'INVALID_REQUEST',
    `waitMs of ${where} is a number of milliseconds from 0 on, not ${textOfError(waitMs)}`,
  );
}

function prepareOptions(
  messages: MessageInput | MessageInput[],
  { database, commitInBackground, separate, ...rest }: TransactionOptions,
): PrepareOptions {
  if (typeof messages !== 'object' || messages === null) {
    throw new EscrowError(
      'INVALID_REQUEST',
      `a message, or a list of messages, stands before the callback; ${kindOf(messages)} is none`,
    );
  }
  return { ...rest, messages: [messages].flat() };
}

function openMessages(messages: MessageInput[]): OpenMessage[] {
  return messages.flatMap((message, number) => {
    if (message.dataAtCommit !== true) return [];
    const place = placeOf(message);
    return [place === undefined ? { number } : { number, place }];
  });
}
