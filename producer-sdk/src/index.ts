export type {
  DatabaseInput,
  Dialect,
  EnsureOptions,
  Executor,
  Housekeeping,
  LocalDatabase,
  LocalTransaction,
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Transaction,
} from '@escrowmq/database';
export {
  type AnyTopic,
  type BusinessKeyAnswer,
  type CompensationRequest,
  defineTopic,
  EscrowError,
  isEscrowError,
  type MessageInput,
  type ProducerGroupAnswer,
  type ProducerGroupInput,
  type SchemaVersions,
  type StandardSchema,
  type TopicSchemas,
  type TransactionAnswer,
  type TransactionView,
  type TypedData,
  type TypedMessage,
  type TypedMessageOptions,
  type TypedTopic,
} from '@escrowmq/protocol';
export type { CheckDecisionOptions } from './checks/check-decider.js';
export {
  type FastifyCheckOptions,
  type FastifyScope,
  fastifyCheckPlugin,
} from './checks/check-fastify.js';
export { fetchCheckHandler } from './checks/check-fetch.js';
export {
  type CheckHandler,
  type CheckHandlerOptions,
  type CheckResponse,
  createCheckHandler,
} from './checks/check-handler.js';
export type { CheckMountOptions } from './checks/check-mount.js';
export {
  type CheckIncomingMessage,
  expressCheckHandler,
  type NodeCheckListener,
  nestCheckMiddleware,
  nodeCheckListener,
} from './checks/check-node.js';
export {
  type CheckPoller,
  type CheckPollerOptions,
  createCheckPoller,
} from './checks/check-poller.js';
export type { SigningSecret, SigningSecretSource } from './checks/check-signature.js';
export type { PrepareOptions, SendOptions } from './client/operation-json.js';
export {
  type CompensationHandler,
  type CompensationHandlerOptions,
  createCompensationHandler,
  type TransactionIn,
} from './compensation/compensation-handler.js';
export {
  expressCompensationHandler,
  type FastifyCompensationOptions,
  fastifyCompensationPlugin,
  fetchCompensationHandler,
  nestCompensationMiddleware,
  nodeCompensationListener,
} from './compensation/compensation-mounts.js';
export { purgeCompensations } from './compensation/compensation-purge.js';
export {
  COMPENSATION_TABLE_SQL,
  ensureCompensationTable,
} from './compensation/compensation-table.js';
export { type HousekeepingOptions, startHousekeeping } from './housekeeping.js';
export { BARRIER_TABLE_SQL, ensureBarrierTable } from './local/barrier.js';
export { purgeBarrier } from './local/barrier-purge.js';
export type { EnlistedTransaction, SettleResult } from './local/enlist.js';
export type { SupplyData } from './local/supplied-data.js';
export type { TransactionInfo, TransactionResult } from './local/transaction.js';
export type { Logger } from './logger.js';
export type { ProducerLimits, ProducerOptions } from './options.js';
export { purgeOutbox } from './outbox/outbox-purge.js';
export {
  createOutboxRelay,
  type OutboxRelay,
  type OutboxRelayOptions,
  type OutboxStats,
} from './outbox/outbox-relay.js';
export { ensureOutboxTable, OUTBOX_TABLE_SQL } from './outbox/outbox-table.js';
export { createProducer } from './producer.js';
export type { CancelOptions, CommitOptions, Producer, TransactionOptions } from './producer-api.js';
export type { RegisterGroupOptions } from './register-group.js';
export type { TracedOperation, Tracing } from './tracing.js';
