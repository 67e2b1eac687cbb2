/** A user as registered; travels in the message as well. */
export interface User {
  userId: number;
  phone: string;
  email: string;
  identityCard: string;
}

/**
 * The ways to find a user other than by id. Each is a table `<value, user id>`, sharded by the
 * value itself and written by a consumer group of its own.
 */
export interface Index {
  /** The consumer group that writes it. */
  group: string;
  table: string;
  valueOf(user: User): string;
  /** The business key under which the broker knows a registration that is still under way. */
  businessKeyOf(value: string): string;
}

export const PHONE_INDEX: Index = {
  group: 'phone-index',
  table: 'phone_index',
  valueOf: (user) => user.phone,
  businessKeyOf: (phone) => `phone:${phone}`,
};

export const EMAIL_INDEX: Index = {
  group: 'email-index',
  table: 'email_index',
  valueOf: (user) => user.email,
  businessKeyOf: (email) => `email:${email}`,
};

const IDENTITY_INDEX: Index = {
  group: 'identity-index',
  table: 'identity_index',
  valueOf: (user) => user.identityCard,
  businessKeyOf: (identityCard) => `idcard:${identityCard}`,
};

export const INDEXES: readonly Index[] = [PHONE_INDEX, EMAIL_INDEX, IDENTITY_INDEX];
