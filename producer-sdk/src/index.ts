export {
  type BusinessKeyAnswer,
  EscrowError,
  isEscrowError,
  type MessageInput,
  type ProducerGroupAnswer,
  type ProducerGroupInput,
  type TransactionAnswer,
  type TransactionView,
} from '@escrowmq/protocol';
export type { DatabaseInput } from './adapters/database-of.js';
export type {
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Transaction,
} from './adapters/mysql2-shape.js';
export { BARRIER_TABLE_SQL, ensureBarrierTable, purgeBarrier } from './barrier.js';
export type { CheckDecisionOptions } from './check-decider.js';
export {
  type FastifyCheckOptions,
  type FastifyScope,
  fastifyCheckPlugin,
} from './check-fastify.js';
export { fetchCheckHandler } from './check-fetch.js';
export {
  type CheckHandler,
  type CheckHandlerOptions,
  type CheckResponse,
  createCheckHandler,
} from './check-handler.js';
export type { CheckMountOptions } from './check-mount.js';
export {
  type CheckIncomingMessage,
  expressCheckHandler,
  type NodeCheckListener,
  nestCheckMiddleware,
  nodeCheckListener,
} from './check-node.js';
export { type CheckPoller, type CheckPollerOptions, createCheckPoller } from './check-poller.js';
export type { SigningSecret, SigningSecretSource } from './check-signature.js';
export type { Dialect, Executor, LocalDatabase, LocalTransaction } from './database.js';
export type { EnlistedTransaction, SettleResult } from './enlist.js';
export type { Logger } from './logger.js';
export type { PrepareOptions, SendOptions } from './operation-json.js';
export type { ProducerLimits, ProducerOptions } from './options.js';
export {
  createOutboxRelay,
  type OutboxRelay,
  type OutboxRelayOptions,
  type OutboxStats,
} from './outbox-relay.js';
export { ensureOutboxTable, OUTBOX_TABLE_SQL, purgeOutbox } from './outbox-table.js';
export {
  type CommitOptions,
  createProducer,
  type Producer,
  type TransactionOptions,
} from './producer.js';
export type { SupplyData } from './supplied-data.js';
export type { TransactionInfo, TransactionResult } from './transaction.js';
