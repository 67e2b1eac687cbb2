export type { EnsureOptions, Housekeeping } from '@escrowmq/database';
export {
  type AnyTopic,
  defineTopic,
  type ErrorCode,
  EscrowError,
  isEscrowError,
  type SchemaVersions,
  type StandardSchema,
  type TopicSchemas,
  type TypedData,
  type TypedMessage,
  type TypedMessageOptions,
  type TypedTopic,
} from '@escrowmq/protocol';
export type { ApplyOptions, OnceMessage } from './apply/apply-options.js';
export { purgeConsumed } from './apply/consumed-purge.js';
export { CONSUMED_TABLE_SQL, ensureConsumedTable } from './apply/consumed-table.js';
export {
  createDuplicateFront,
  type DuplicateFront,
  type DuplicateFrontOptions,
} from './apply/duplicate-front.js';
export { type LatestOptions, type LatestResult, latest } from './apply/latest.js';
export { ensureLatestTable, LATEST_TABLE_SQL } from './apply/latest-table.js';
export { once } from './apply/once.js';
export { type BatchResult, onceBatch } from './apply/once-batch.js';
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
export type {
  BetweenInstances,
  ConnectionName,
  ConsumerEvent,
  Instance,
  OnMessage,
  OnQueue,
} from './events.js';
export { type HousekeepingOptions, startHousekeeping } from './housekeeping.js';
export type { ConsumerOptions, SubscribeOptions } from './options.js';
export type { OrderedOptions } from './ordered/options.js';
export type { DeadReason } from './settle/next-step.js';
export { PermanentError } from './settle/permanent-error.js';
export { RetryLater } from './settle/retry-later.js';
export type { Tracing } from './tracing.js';
export type {
  EphemeralTopicMessage,
  FitMessage,
  KeyOf,
  OfTypedTopic,
  TopicMessage,
  TypedBatchOptions,
  TypedEphemeralOptions,
  TypedSubscribeOptions,
} from './typed/options.js';
