import type {
  DatabaseInput,
  LocalDatabase,
  Mysql2Pool,
  Mysql2Transaction,
} from '@escrowmq/database';
import { within } from '@escrowmq/database';
import {
  type CompensationAnswer,
  CompensationRequest,
  EscrowError,
  refuseUnknown,
  requireFunction,
} from '@escrowmq/protocol';
import {
  CALLBACK_OPTIONS,
  type CallbackHandler,
  type CallbackOptions,
  COMPENSATION,
  createCallbackHandler,
} from '../checks/callback-handler.js';
import {
  type CheckDecisionOptions,
  createCheckDecider,
  DECISION_OPTIONS,
} from '../checks/check-decider.js';
import { decideOutcome } from '../local/decide-outcome.js';
import { type Compensating, compensateOnce } from './compensate-once.js';

/** The handle of a transaction of that database, as its layer has it. */
export type TransactionIn<Database> =
  Database extends LocalDatabase<infer Tx>
    ? Tx
    : Database extends Mysql2Pool<infer C>
      ? Mysql2Transaction<C>
      : never;

/**
 * Answers the broker's calls to compensate: undoes in the producer's own database what a message
 * announced that a consumer group has given up for good. All times are milliseconds.
 *
 * `answerTimeoutMs` holds the whole of it: what is not committed by then is rolled back, not
 * acknowledged, and called for again. Raise it together with `timeoutMs` of the check policy.
 */
export interface CompensationHandlerOptions<Database extends DatabaseInput>
  extends CallbackOptions,
    Omit<CheckDecisionOptions, 'database' | 'databases'> {
  /**
   * The one database of this producer, with the tables of the barrier and of compensations.
   * @default none: `databases` has them
   */
  database?: Database;
  /**
   * Databases by the name given as `database` in `transaction`.
   * @default none: `database` is the only one
   */
  databases?: Record<string, Database>;
  /**
   * Where there are several `databases`: the name of the one in which to undo what was sent without
   * a prepare, by `send` or in outbox mode. The broker knows none for it. @default none: it is not
   * acknowledged
   */
  databaseOfSent?(request: CompensationRequest): string;
  /**
   * Undoes what the message announced; everything through `tx`, which is committed when this has
   * resolved. Runs once for each transaction, message and consumer group.
   *
   * @throws to have it rolled back and called for again
   */
  compensate(tx: TransactionIn<Database>, request: CompensationRequest): Promise<unknown>;
}

/** Answers one call for compensation; made by `createCompensationHandler`. */
export type CompensationHandler = CallbackHandler;

type Call = Pick<Compensating<unknown>, 'request' | 'deadline' | 'signal'>;

/**
 * First decides what became of the original transaction, exactly as a check does. Was it rolled
 * back, there is nothing to undo, and nothing will be: that is acknowledged, and `compensate` is not
 * called. Is it not known, nothing is acknowledged, and the broker calls again.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION: no or a malformed secret, no database, or both kinds
 * @example
 * const compensation = createCompensationHandler({
 *   signingSecret: process.env.CHECK_SECRET,
 *   database: pool,
 *   compensate: async (tx, { businessKeys }) => {
 *     await tx.execute('update orders set state = ? where number = ?', ['cancelled', businessKeys[0]]);
 *   },
 * });
 * http.createServer(nodeCompensationListener(compensation)).listen(8080);
 */
export function createCompensationHandler<Database extends DatabaseInput>(
  options: CompensationHandlerOptions<Database>,
): CompensationHandler {
  refuseUnknown(
    options,
    [...CALLBACK_OPTIONS, ...DECISION_OPTIONS, 'databaseOfSent', 'compensate'],
    'createCompensationHandler',
  );
  requireFunction(options.compensate, 'compensate', 'createCompensationHandler');
  const { locate, answerTimeoutMs, logger } = createCheckDecider(options);
  const { databaseOfSent } = options;
  if (databaseOfSent !== undefined) {
    requireFunction(databaseOfSent, 'databaseOfSent', 'createCompensationHandler');
  }
  const compensate = options.compensate as (
    tx: unknown,
    request: CompensationRequest,
  ) => Promise<unknown>;

  /** @returns why it is not done; rejects with whatever the callback or the database threw */
  async function run({
    request,
    deadline,
    signal,
  }: Call): Promise<{ reason: string; cause?: unknown } | undefined> {
    const { id } = request;
    const isSent = request.sent === true;
    const name = isSent ? databaseOfSent?.(request) : undefined;
    const prepared = name === undefined ? request : { ...request, checkContext: name };
    const located = await locate(prepared, deadline.leftMs);
    if (located.kind === 'nowhere') return located;
    const { database } = located;
    if (!isSent) {
      const outcome = await decideOutcome(database, id, deadline.leftMs);
      if (outcome.decision === 'unknown') return outcome;
      if (outcome.decision === 'rollback') {
        const fields = { transactionId: id, consumerGroup: request.consumerGroup };
        logger.warn(fields, 'a compensation of what was rolled back: there is nothing to undo');
        return undefined;
      }
    }
    await compensateOnce({ database, request, compensate, deadline, signal });
    return undefined;
  }

  return createCallbackHandler(options, {
    kind: COMPENSATION,
    schema: CompensationRequest,
    answerTimeoutMs,
    logger,
    async answer(request, deadline): Promise<CompensationAnswer> {
      const givenUp = new AbortController();
      const done = run({ request, deadline, signal: givenUp.signal });
      const refused = await within(done, deadline.leftMs, {
        error() {
          const late = new Error(`nothing came within ${answerTimeoutMs} ms (answerTimeoutMs)`);
          givenUp.abort(late);
          return late;
        },
        // What the callback threw may be any error, with any code: it says nothing to the broker.
      }).catch((cause: unknown) => ({ reason: 'it failed; the log says why', cause }));
      if (refused !== undefined) throw notDone(request, refused.reason, refused.cause);
      return { id: request.id, acknowledged: true };
    },
  });
}

function notDone(
  { id, message, consumerGroup, attempt }: CompensationRequest,
  reason: string,
  cause: unknown,
): EscrowError {
  return new EscrowError(
    'COMPENSATION_NOT_DONE',
    `message ${message} of ${id} is not compensated for ${consumerGroup} (attempt ${attempt}): ${reason}`,
    { cause },
  );
}
