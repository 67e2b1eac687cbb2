export * from './amqp.js';
export * from './announcements.js';
export * from './batch.js';
export * from './business-keys.js';
export * from './checks.js';
export * from './cloud-events.js';
export * from './coalescer.js';
export * from './compensations.js';
export * from './error-codes.js';
export * from './foreign.js';
export * from './limits.js';
export {
  type MessageBody,
  MessageData,
  type MessageDataInput,
  MessageDataList,
} from './message-data.js';
export * from './message-headers.js';
export * from './messages.js';
export type { Schema } from './named.js';
export * from './names.js';
export * from './older-callers.js';
export * from './open-words.js';
export * from './options.js';
export * from './ordering.js';
export * from './plain-requests.js';
export {
  expectedGroups,
  type PrepareInput,
  PrepareRequest,
  type SendInput,
  SendRequest,
} from './prepare.js';
export * from './problem.js';
export * from './producer-groups.js';
export * from './rabbit-handshake.js';
export * from './rabbit-login.js';
export * from './rabbit-refusal.js';
export * from './receipts.js';
export * from './schema-mismatch.js';
export * from './search.js';
export * from './standard-schema.js';
export * from './topic-pattern.js';
export * from './transaction-views.js';
export * from './transactions.js';
export * from './travelling-data.js';
export * from './typed-topic.js';
export * from './unlike-topic.js';
export * from './version.js';
export * from './webhooks.js';
export * from './words.js';
