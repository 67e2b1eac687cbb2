export {
  type ErrorCode,
  EscrowError,
  isEscrowError,
} from '@escrowmq/protocol';
export type { Handler } from './consume-one.js';
export { CONSUMED_TABLE_SQL, ensureConsumedTable, purgeConsumed } from './consumed-table.js';
export { type Consumer, createConsumer, type Subscription } from './consumer.js';
export type { ConnectionName, ConsumerEvent, OnMessage } from './events.js';
export type { Message } from './message.js';
export type { DeadReason } from './next-step.js';
export { type OnceMessage, once } from './once.js';
export type { ConsumerOptions, SubscribeOptions } from './options.js';
export { PermanentError } from './permanent-error.js';
