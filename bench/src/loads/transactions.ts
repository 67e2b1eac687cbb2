import { setTimeout as pause } from 'node:timers/promises';
import { uuidv7 } from 'uuidv7';
import { z } from 'zod';
import { CommonSettings, closedLoops, Latencies, type Load, serveLoad, warmUpOf } from './load.js';
import { type BenchQueue, openQueue, QueueSettings, ROUTING_KEY } from './queue.js';

/*
 * What the loads on EscrowMQ share: closed loops of prepare, then commit, each awaited. The clock
 * stops when RabbitMQ has confirmed every message and the broker has recorded it.
 */

export const TransactionSettings = CommonSettings.extend({
  ...QueueSettings.shape,
  /** `http://127.0.0.1:port` */
  broker: z.string(),
});

export type TransactionSettings = z.output<typeof TransactionSettings>;

/** How this load talks to the broker. */
export interface Client {
  prepare(transaction: { id: string; messages: object[] }): Promise<void>;
  commit(id: string): Promise<void>;
  close(): Promise<void>;
}

export const PRODUCER_GROUP = 'bench';

const POLL_MS = 5;
/** What the broker still owes a second after the last confirm, it will not do soon. */
const DRAIN_MS_MAX = 60_000;

/** Serves a load whose calls go through `open`'s client. */
export async function serveTransactions(
  open: (settings: TransactionSettings) => Promise<Client>,
): Promise<void> {
  await serveLoad(TransactionSettings, async (settings: TransactionSettings): Promise<Load> => {
    const queue = await openQueue(settings.rabbitmq, settings.queueType);
    await registerGroup(settings.broker);
    const client = await open(settings);
    const messages = [messageTo(queue, settings.dataBytes)];
    await runTransactions(warmUpOf(settings), { client, queue, messages });
    await queue.purge();
    return {
      run: () => runTransactions(settings, { client, queue, messages }),
      reset: () => queue.purge(),
      async close() {
        await client.close();
        await queue.close();
      },
    };
  });
}

interface Parts {
  client: Client;
  queue: BenchQueue;
  messages: object[];
}

async function runTransactions(
  settings: TransactionSettings,
  { client, queue, messages }: Parts,
): Promise<Awaited<ReturnType<Load['run']>>> {
  const prepares = new Latencies();
  const commits = new Latencies();
  let last = '';
  const startedAt = performance.now();
  const operations = await closedLoops(settings, async () => {
    const id = uuidv7();
    const from = performance.now();
    await client.prepare({ id, messages });
    const prepared = performance.now();
    await client.commit(id);
    prepares.add(prepared - from);
    commits.add(performance.now() - prepared);
    last = id;
  });
  const loopsEndedAt = performance.now();
  await queue.holds(operations);
  await forwarded(settings.broker, last);
  const drainedAt = performance.now();
  return {
    operations,
    seconds: (drainedAt - startedAt) / 1000,
    counts: { drainMs: drainedAt - loopsEndedAt },
    latencyMs: { prepare: prepares.quantiles(), commit: commits.quantiles() },
  };
}

/** JSON data whose text is `bytes` long, which is the body that RabbitMQ gets. */
export function messageTo({ topic }: Pick<BenchQueue, 'topic'>, bytes: number) {
  const empty = JSON.stringify({ text: '' }).length;
  return { topic, routingKey: ROUTING_KEY, data: { text: 'x'.repeat(bytes - empty) } };
}

/** Without check endpoints: every transaction gets its verdict here. */
export async function registerGroup(broker: string): Promise<void> {
  const response = await fetch(`${broker}/v1/producer-groups/${PRODUCER_GROUP}`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: '{"checkUrls":[]}',
  });
  if (!response.ok) throw new Error(`the producer group was refused: ${await response.text()}`);
}

/**
 * Waits until the transaction is on record as forwarded. RabbitMQ has confirmed them all by then, and
 * the one that was committed last is in the last batch of confirms or near it. By its id, which
 * costs the same in every store: a search by state read all of a million rows on MariaDB.
 */
async function forwarded(broker: string, id: string): Promise<void> {
  const startedAt = performance.now();
  while (performance.now() - startedAt < DRAIN_MS_MAX) {
    const response = await fetch(`${broker}/v1/transactions/${id}`);
    if (!response.ok) throw new Error(`the query was refused: ${await response.text()}`);
    const { state } = (await response.json()) as { state: string };
    if (state === 'forwarded') return;
    await pause(POLL_MS);
  }
  throw new Error(`the broker does not take ${id} for forwarded, which RabbitMQ holds already`);
}

/**
 * Waits until every committed transaction is on record as forwarded. By a search, which an index
 * answers: /metrics counts all rows, and remembers the count for seconds.
 */
export async function nothingCommitted(broker: string): Promise<void> {
  const startedAt = performance.now();
  while (performance.now() - startedAt < DRAIN_MS_MAX) {
    const response = await fetch(`${broker}/v1/transactions?state=committed&limit=1`);
    if (!response.ok) throw new Error(`the search was refused: ${await response.text()}`);
    const { transactions } = (await response.json()) as { transactions: unknown[] };
    if (transactions.length === 0) return;
    await pause(POLL_MS);
  }
  throw new Error('the broker still has committed transactions that RabbitMQ holds already');
}
