import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Store } from '@escrowmq/broker/dist/domain/ports.js';
import type { NewTransaction } from '@escrowmq/broker/dist/domain/transaction.js';
import { openStore } from '@escrowmq/broker/dist/store/open-store.js';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import { ROUTING_KEY } from '../loads/queue.js';
import { messageTo, PRODUCER_GROUP } from '../loads/transactions.js';
import { DATA_BYTES } from './group.js';

/*
 * A store with a past: the rows that a million transactions leave, written by the broker's own
 * store module, and so the same that a broker would have written, without a broker's work for each.
 */

export type Filling = 'open' | 'finished';

/** As in the broker's own batches. */
const BATCH_ROWS = 500;
/** MySQL writes one batch while the next ones are put together; SQLite takes turns. */
const BATCHES_AT_A_TIME = 4;
/** No row that waits becomes due before the bench has ended. */
const DAY_MS = 24 * 60 * 60 * 1000;

/**
 * `open`: prepared, with a check due in a day. `finished`: forwarded, as a send leaves it, which
 * is what a transaction leaves but for the random token of its verdict, of the same size.
 */
export async function fillStore(url: string, filling: Filling, rows: number): Promise<void> {
  const store = await openStore(url);
  const topic = `bench-${uuidv7()}`;
  let left = rows;
  const write = async () => {
    while (left > 0) {
      const count = Math.min(BATCH_ROWS, left);
      left -= count;
      await fillBatch(store, filling, { topic, count });
    }
  };
  await Promise.all(Array.from({ length: BATCHES_AT_A_TIME }, write));
  await store.close();
  if (url.startsWith('mysql:')) await mariadbIsQuiet(url);
}

async function fillBatch(
  store: Store,
  filling: Filling,
  { topic, count }: { topic: string; count: number },
): Promise<void> {
  const now = await store.now();
  const batch = Array.from({ length: count }, () => transactionTo(topic, filling, now));
  const results = await store.insert(batch);
  if (results.some(({ kind }) => kind !== 'created')) throw new Error('a row was there already');
  if (filling === 'open') return;
  await store.saveForwards(
    batch.map(({ id }) => ({
      id,
      done: 1,
      unrouted: 0,
      to: { state: 'forwarded', forwardedAt: now },
      history: [],
    })),
  );
}

function transactionTo(topic: string, filling: Filling, now: number): NewTransaction {
  const { data } = messageTo({ topic }, DATA_BYTES);
  const message = {
    topic,
    routingKey: ROUTING_KEY,
    data,
    headers: {},
    ifUnrouted: 'retry',
  } as const;
  const messagesJson = JSON.stringify([message]);
  return {
    id: uuidv7(),
    producerGroup: PRODUCER_GROUP,
    businessKeys: [],
    expects: [],
    checkContext: undefined,
    messages: [message],
    trace: {},
    // Nobody repeats these; a hash is as random.
    contentHash: randomBytes(32),
    preparedAt: now,
    messagesJson,
    bytes: Buffer.byteLength(messagesJson),
    mayBePurged: false,
    kind:
      filling === 'open'
        ? { op: 'prepare', checkAfterMs: DAY_MS }
        : { op: 'send', leaseMs: DAY_MS },
  };
}

/** Old versions of rows that InnoDB may still have to delete: an idle server has some hundred. */
const HISTORY_MAX = 1_000;
/** A million old versions take some seconds. */
const QUIET_MS_MAX = 120_000;
const POLL_MS = 200;

/** What the filling left to do in the background would count as the cost of what comes next. */
async function mariadbIsQuiet(url: string): Promise<void> {
  const connection = await createConnection(url);
  try {
    const startedAt = performance.now();
    for (;;) {
      const [rows] = await connection.query<RowDataPacket[]>(
        "show global status like 'Innodb_history_list_length'",
      );
      const history = Number(rows[0]?.Value);
      if (history <= HISTORY_MAX) return;
      if (performance.now() - startedAt > QUIET_MS_MAX) {
        throw new Error(`InnoDB still has ${history} old versions of rows to delete`);
      }
      await pause(POLL_MS);
    }
  } finally {
    await connection.end();
  }
}
