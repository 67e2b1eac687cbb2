import type { HaltPoint } from './halting-pool.js';

/** What a producer process is started with; shards in the order that is the sharding. */
export interface ProducerSettings {
  brokerUrl: string;
  shardUrls: string[];
  signingSecret: string;
  /** Stand still there in every transaction, until told to go on. */
  haltAt?: HaltPoint;
  /** Answer checks by looking instead of deciding: see naive-check.ts. */
  naiveCheck: boolean;
}

export interface WriterSettings {
  rabbitmqUrl: string;
  shardUrls: string[];
}

/** From the demo to a process of its own. */
export type ToChild<Settings> = { type: 'start'; settings: Settings } | { type: 'goOn' };

/** From a process to the demo. */
export type FromChild =
  | { type: 'ready'; url?: string }
  | { type: 'failed'; message: string }
  /** A transaction stands still at the halt point. */
  | { type: 'halted' };
