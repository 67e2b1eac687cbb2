import type { LocalDatabase } from '@escrowmq/database';
import { EscrowError, type MessageData } from '@escrowmq/protocol';
import {
  type Operation,
  type PrepareOptions,
  prepareOperation,
  type SendOptions,
  sendOperation,
  type Writing,
} from '../client/operation-json.js';
import { idValue, textValue } from '../local/barrier-sql.js';
import { type DecidingRow, type Outcome, settleIn } from '../local/decide-outcome.js';
import type { HeldMessages, OpenMessage } from '../local/held-messages.js';
import { SETTLE_AGE_MS_MAX } from './outbox-purge.js';
import type { OutboxSender } from './outbox-sender.js';
import { OUTBOX_STATEMENTS } from './outbox-sql.js';
import { missingOutbox } from './outbox-table.js';

/**
 * Messages held in the producer's own database: the local transaction writes them into the outbox,
 * so that they are durable exactly when it is, and the broker hears of them only then. Nobody has to
 * be asked about them, and no broker has to be there while the transaction runs.
 *
 * What a crash does at each step: before COMMIT the row goes with the transaction. After it the row
 * is there, and a relay sends it, under the transaction's own id, so that what was sent before the
 * crash is not sent again. Marked as sent is only what the broker has acknowledged.
 */
export interface OutboxDeps {
  id: string;
  writing: Writing;
  /** The messages, as for a prepare. */
  prepared: PrepareOptions;
  open: readonly OpenMessage[];
  /** @default the one that `decide` is asked with first */
  database?: LocalDatabase<unknown>;
  sender: OutboxSender;
}

/**
 * How long relays leave a row to the process that wrote it, which sends it right after its COMMIT:
 * the limit of that call (2 s), and the time to mark it. One that began longer ago is sent twice
 * at worst, under the same id.
 */
const HEAD_START_MS = 3_000;

export function outbox(deps: OutboxDeps): HeldMessages {
  const { id, writing, open, sender } = deps;
  const { producerGroup } = writing;
  const startedAt = Date.now();
  let operation = storedOperation(deps);
  let { database } = deps;

  return {
    id,
    open,
    size: { bytes: operation.bytes, bytesMax: writing.transactionBytesMax },
    hold: async () => undefined,
    async bind({ executor, dialect }) {
      await executor.execute(OUTBOX_STATEMENTS[dialect].insert, [
        idValue(id),
        producerGroup,
        operation.bytes,
        textValue(dialect, operation.json),
        HEAD_START_MS,
      ]);
    },
    async supply({ executor, dialect }, messageData) {
      operation = completed(writing, operation, messageData);
      await executor.execute(OUTBOX_STATEMENTS[dialect].complete, [
        operation.bytes,
        textValue(dialect, operation.json),
        idValue(id),
      ]);
    },
    async decide(asked, limitMs) {
      database ??= asked;
      // Later the row may have been purged, and its absence would be taken for a rollback.
      if (Date.now() - startedAt > SETTLE_AGE_MS_MAX) {
        return { decision: 'unknown', reason: 'it began longer ago than the outbox tells of it' };
      }
      return settleIn(decidingRow(producerGroup), { database: asked, id }, limitMs);
    },
    async release() {
      if (database !== undefined) sender.send(database, operation);
    },
    async drop() {
      // The row went with its transaction, and nobody else knows of the messages.
    },
    alreadyDecided: (cause) =>
      new EscrowError(
        'ALREADY_ROLLED_BACK',
        `transaction ${id} was decided as rolled back before its local transaction began; nothing was written, start a new one`,
        { cause, details: { id } },
      ),
    whileUnknown: 'its messages are in the outbox, and sent from there, if it has committed',
    whileHeld: 'its messages are in the outbox, and sent from there',
    missingTable: missingOutbox,
  };
}

/** By the states of a row; another one proves nothing. */
const DECISIONS: Record<string, Outcome | undefined> = {
  void: { decision: 'rollback' },
  unsent: { decision: 'commit' },
  sent: { decision: 'commit' },
  parked: { decision: 'commit' },
};

/** A row without messages stands for a local transaction that never commits. */
const decidingRow = (producerGroup: string): DecidingRow => ({
  table: 'escrow_outbox',
  async insertRollback({ executor, dialect }, id) {
    await executor.execute(OUTBOX_STATEMENTS[dialect].insertVoid, [idValue(id), producerGroup]);
  },
  async read({ executor, dialect }, id) {
    const { readState } = OUTBOX_STATEMENTS[dialect];
    const [row] = await executor.select(readState, { state: 'text' }, [idValue(id)]);
    return row && DECISIONS[row.state];
  },
});

/**
 * @throws {EscrowError} the code of the field that is wrong, or BODY_TOO_LARGE, before anything was
 *   written
 */
function storedOperation({ id, writing, prepared, open }: OutboxDeps): Operation {
  // Nobody checks: what is in the outbox is decided.
  const { checkAfterMs, checkContext, ...send } = prepared;
  if (open.length === 0) return sendOperation(writing, { ...send, id });
  // A send can't leave data open. As a prepare all the rest of it is checked before the callback
  // runs; what it says in the end is written by `supply`.
  const { json } = prepareOperation(writing, { ...send, id });
  const stored = JSON.stringify({ ...JSON.parse(json), op: 'send' });
  return { op: 'send', id, json: stored, bytes: Buffer.byteLength(stored) };
}

/** @throws {EscrowError} like `storedOperation` */
function completed(
  writing: Writing,
  { id, json }: Operation,
  messageData: MessageData[],
): Operation {
  const { messages, businessKeys, expects, trace } = JSON.parse(json) as SendOptions;
  const given = new Map(messageData.map(({ number, ...body }) => [number, body]));
  const filled = messages.map((message, number) => {
    const body = given.get(number);
    if (body === undefined) return message;
    const { dataAtCommit, ...rest } = message;
    return { ...rest, ...body };
  });
  return sendOperation(writing, {
    id,
    messages: filled,
    ...(businessKeys === undefined ? {} : { businessKeys }),
    ...(expects === undefined ? {} : { expects }),
    ...(trace === undefined ? {} : { trace }),
  });
}
