/* What the parties and their databases are called. */

export const BROKERS = ['broker-1', 'broker-2'] as const;
export const PRODUCERS = ['producer-1', 'producer-2'] as const;
export const CONSUMERS = ['consumer-1', 'consumer-2'] as const;

export const STORE_DATABASE = 'broker';
export const CONSUMER_DATABASE = 'consumers';
/** By producer. */
export const PRODUCER_DATABASES = {
  'producer-1': 'producer_1',
  'producer-2': 'producer_2',
} as const satisfies Record<(typeof PRODUCERS)[number], string>;
