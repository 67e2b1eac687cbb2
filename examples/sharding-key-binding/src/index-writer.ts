import { type Consumer, type Message, once, PermanentError } from '@escrowmq/consumer';
import { INDEXES, type Index, type User } from './indexes.js';
import { ROUTING_KEY, TOPIC } from './registration.js';
import type { Shards } from './shards.js';

export interface IndexWriterDeps {
  consumer: Consumer;
  shards: Shards;
  /** Is called for every delivery, repeats included, before anything is written. @default none */
  onDelivery?(index: Index, message: Message<User>): Promise<void>;
}

/** A database that restarts is back within these; each distinct delay costs a queue per index. */
export const RETRY_DELAYS_MS = [500, 2_000, 10_000];

/** Consumes registrations for every index, each with a consumer group of its own. */
export async function startIndexWriters({
  consumer,
  shards,
  onDelivery,
}: IndexWriterDeps): Promise<void> {
  for (const index of INDEXES) {
    await consumer.subscribe<User>(
      {
        topic: TOPIC,
        group: index.group,
        routingKeys: [ROUTING_KEY],
        retryDelaysMs: RETRY_DELAYS_MS,
      },
      async (message) => {
        await onDelivery?.(index, message);
        await writeIndexEntry(shards, index, message);
      },
    );
  }
}

/** Writes one entry into the shard of its value, once however often the message comes. */
async function writeIndexEntry(
  shards: Shards,
  index: Index,
  message: Message<User>,
): Promise<void> {
  const value = index.valueOf(message.data);
  await once(shards.ofValue(value).pool, message, async (tx) => {
    try {
      await tx.execute(`insert into ${index.table} (value, user_id) values (?, ?)`, [
        value,
        message.data.userId,
      ]);
    } catch (error) {
      if (!isDuplicate(error)) throw error;
      // Another shard's user has it. Trying again would not change that: a person must decide.
      throw new PermanentError(`${index.table}: ${value} belongs to another user`, {
        cause: error,
      });
    }
  });
}

const ER_DUP_ENTRY = 1062;

function isDuplicate(error: unknown): boolean {
  return error instanceof Error && 'errno' in error && error.errno === ER_DUP_ENTRY;
}
