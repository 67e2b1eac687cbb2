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
export { BARRIER_TABLE_SQL, ensureBarrierTable, purgeBarrier } from './barrier.js';
export {
  type CheckHandler,
  type CheckHandlerOptions,
  type CheckResponse,
  createCheckHandler,
} from './check-handler.js';
export type { TransactionConnection } from './local-transaction.js';
export type { Logger } from './logger.js';
export { type NodeCheckListenerOptions, nodeCheckListener } from './node-check-listener.js';
export type { PrepareOptions, SendOptions } from './operation-json.js';
export type { ProducerLimits, ProducerOptions } from './options.js';
export {
  createProducer,
  type Producer,
  type TransactionOptions,
} from './producer.js';
