export {
  type ErrorCode,
  EscrowError,
  isEscrowError,
} from '@escrowmq/protocol';
export { CONSUMED_TABLE_SQL, ensureConsumedTable, purgeConsumed } from './consumed-table.js';
export type { BatchHandler, BatchOptions, BatchOutcome } from './batch/options.js';
export { createConsumer } from './consumer.js';
export type { Consumer, Subscription } from './consumer-api.js';
export type { Handler } from './delivery/consume-one.js';
export type { Message } from './delivery/message.js';
export type {
  EphemeralHandler,
  EphemeralMessage,
  EphemeralOptions,
  GapReason,
} from './ephemeral/options.js';
export type { ConnectionName, ConsumerEvent, OnMessage } from './events.js';
export { type OnceMessage, once } from './once.js';
export type { ConsumerOptions, SubscribeOptions } from './options.js';
export type { DeadReason } from './settle/next-step.js';
export { PermanentError } from './settle/permanent-error.js';
export { RetryLater } from './settle/retry-later.js';
export type { Tracing } from './tracing.js';
