import type { Producer, TransactionResult } from '@escrowmq/producer';
import { INDEXES, type User } from './indexes.js';
import type { Shards } from './shards.js';

/** Every instance of the producer service can answer for every other. */
export const PRODUCER_GROUP = 'accounts';
export const TOPIC = 'user';
export const ROUTING_KEY = 'registered';

/** The e-mail belongs to another user of the same shard. Nothing was written, nothing is sent. */
export class EmailTakenError extends Error {
  override readonly name = 'EmailTakenError';
  readonly transactionId: string;

  constructor(email: string, transactionId: string) {
    super(`${email} belongs to another user (transaction ${transactionId} was rolled back)`);
    this.transactionId = transactionId;
  }
}

export interface RegistrationDeps {
  producer: Producer;
  shards: Shards;
}

/**
 * Registers a user: a row in the user's own shard and one message to the index writers, both or
 * neither. The indexes lie in other shards, so no local transaction could write them as well.
 *
 * @returns the id of the transaction, and whether it has committed or nobody knows yet
 * @throws EmailTakenError, and whatever `transaction` throws: then the user is not registered
 */
export async function registerUser(
  { producer, shards }: RegistrationDeps,
  user: User,
): Promise<Pick<TransactionResult<void>, 'id' | 'outcome'>> {
  const { name, pool } = shards.ofUser(user.userId);
  return producer.transaction(
    pool,
    { topic: TOPIC, routingKey: ROUTING_KEY, data: user },
    async (tx, { id }) => {
      try {
        await tx.execute(
          'insert into users (user_id, phone, email, identity_card) values (?, ?, ?, ?)',
          [user.userId, user.phone, user.email, user.identityCard],
        );
      } catch (error) {
        if (isDuplicateEmail(error)) throw new EmailTakenError(user.email, id);
        throw error;
      }
    },
    {
      database: name,
      // Whoever looks for this phone meanwhile asks the broker and waits: see look-up.ts.
      businessKeys: INDEXES.map((index) => index.businessKeyOf(index.valueOf(user))),
      // Settled means that all three indexes are written.
      expects: INDEXES.map(({ group }) => group),
    },
  );
}

const ER_DUP_ENTRY = 1062;

/** MySQL 8 writes the key as `users.users_email`, MariaDB and MySQL 5.7 as `users_email`. */
function isDuplicateEmail(error: unknown): boolean {
  if (!(error instanceof Error) || !('errno' in error)) return false;
  return error.errno === ER_DUP_ENTRY && /for key '(users\.)?users_email'$/.test(error.message);
}
