import type { LocalDatabase, LocalTransaction } from '@escrowmq/producer';
import type { EngineName } from './engine.js';

/**
 * A query builder or an ORM as the suite uses it: what a service would write with it, and the two
 * things that its adapter makes of it.
 */
export interface Layer<Tx> {
  name: string;
  engines: readonly EngineName[];
  /** @param url of a database with the tables of `startEngine` */
  open(engine: EngineName, url: string): Promise<OpenLayer<Tx>>;
}

export interface OpenLayer<Tx> {
  database: LocalDatabase<Tx>;
  /** What the adapter makes of an open transaction. */
  enlistable(tx: Tx): LocalTransaction;
  /** A transaction that the service opens itself, and that commits when `work` has resolved. */
  begin<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
  /** A transaction inside of one: a savepoint. Absent where the layer has none. */
  nest?(tx: Tx, work: (inner: Tx) => Promise<void>): Promise<void>;
  /** Inserts into `account` in the way of the layer. */
  insert(tx: Tx, id: number): Promise<unknown>;
  /** Sends a statement as it stands. */
  run(tx: Tx, sql: string): Promise<unknown>;
  /** What the adapter says when it gets something that is no open transaction of the layer. */
  refused: { what: string; make(): unknown }[];
  close(): Promise<void>;
}
