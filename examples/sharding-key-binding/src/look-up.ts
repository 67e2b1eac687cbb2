import type { Producer } from '@escrowmq/producer';
import type { RowDataPacket } from 'mysql2/promise';
import type { Index, User } from './indexes.js';
import type { Shards } from './shards.js';

export interface LookUpDeps {
  producer: Pick<Producer, 'waitForBusinessKey'>;
  shards: Shards;
  /** How long to wait for a registration that is under way. @default 10000 */
  waitMs?: number;
}

/** Longer than a restart of the index writers, shorter than a person's patience. */
const WAIT_MS = 10_000;

/**
 * Finds a user by phone, e-mail or identity card. A registration under way may have its user row
 * and not yet its index entry; the broker knows of it by its business key, so waiting there takes
 * the place of a lock. A value that nobody is registering costs one call and no wait.
 *
 * @example
 * const user = await findUser({ producer, shards }, PHONE_INDEX, '+8613800000000');
 */
export async function findUser(
  { producer, shards, waitMs = WAIT_MS }: LookUpDeps,
  index: Index,
  value: string,
): Promise<User | undefined> {
  await producer.waitForBusinessKey(index.businessKeyOf(value), { waitMs });
  const [entries] = await shards
    .ofValue(value)
    .pool.execute<RowDataPacket[]>(`select user_id from ${index.table} where value = ?`, [value]);
  const userId: unknown = entries[0]?.user_id;
  if (typeof userId !== 'number') return undefined;
  const [users] = await shards.ofUser(userId).pool.execute<(User & RowDataPacket)[]>(
    `select user_id as userId, phone, email, identity_card as identityCard
     from users where user_id = ?`,
    [userId],
  );
  return users[0];
}
