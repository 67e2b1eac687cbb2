import type { User } from '../indexes.js';

/** Invents users, no two alike. */
export interface Cast {
  next(): User;
  /** A user of the same shard as that one. */
  nextBeside(user: User): User;
  /** A user of any other shard. */
  nextApartFrom(user: User): User;
}

const FIRST_USER_ID = 10_001;

export function createCast(shardCount: number): Cast {
  let userId = FIRST_USER_ID;
  const next = (): User => {
    const user = {
      userId,
      phone: `+86138${String(userId).padStart(8, '0')}`,
      email: `user-${userId}@example.com`,
      identityCard: `1101011990${String(userId).padStart(8, '0')}`,
    };
    userId += 1;
    return user;
  };
  const nextWhere = (isWanted: (user: User) => boolean): User => {
    for (;;) {
      const user = next();
      if (isWanted(user)) return user;
    }
  };
  const shardOf = (user: User) => user.userId % shardCount;
  return {
    next,
    nextBeside: (user) => nextWhere((other) => shardOf(other) === shardOf(user)),
    nextApartFrom: (user) => nextWhere((other) => shardOf(other) !== shardOf(user)),
  };
}
