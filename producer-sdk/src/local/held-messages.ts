import type { Dialect, Executor, LocalDatabase } from '@escrowmq/database';
import type { EscrowError, MessageData, SchemaPlace } from '@escrowmq/protocol';
import type { Outcome } from './decide-outcome.js';

/** Bytes of UTF-8. */
export interface TransactionSize {
  readonly bytes: number;
  readonly bytesMax: number;
}

/** A message whose data the callback must supply. */
export interface OpenMessage {
  readonly number: number;
  /** The schema that they have to fit; absent for a plain topic. */
  readonly place?: SchemaPlace;
}

/**
 * Where a transaction's messages are while its local transaction runs, and what binds the two: one
 * row that the local transaction writes in the producer's own database.
 */
export interface HeldMessages {
  readonly id: string;
  /**
   * Begins to put the messages where they are held; resolves to its error, or to undefined once
   * they are safe. The local COMMIT waits for it. Called again, it answers the same.
   */
  hold(): Promise<Error | undefined>;
  /**
   * Writes the row that binds, first thing in the local transaction.
   *
   * @throws the layer's error; on a duplicate key somebody has decided already
   */
  bind(on: { executor: Executor; dialect: Dialect }): Promise<void>;
  /** Keeps what the callback supplied for messages whose data was left open. */
  supply(on: { executor: Executor; dialect: Dialect }, messageData: MessageData[]): Promise<void>;
  /** What became of the local transaction, decided like a check, within `limitMs`. */
  decide(database: LocalDatabase<unknown>, limitMs: number): Promise<Outcome>;
  /**
   * The local transaction has committed: lets the messages go.
   *
   * @throws {EscrowError} when nobody could be told; they go all the same, later
   */
  release(messageData: MessageData[] | undefined): Promise<void>;
  /** Only where the local transaction was certainly undone. */
  drop(): Promise<void>;
  /** The messages whose data the callback must supply. */
  readonly open: readonly OpenMessage[];
  /** What the transaction has as JSON without the data that are left open, and may have with them. */
  readonly size: TransactionSize;
  /** For a duplicate key at `bind`. */
  alreadyDecided(cause: unknown): EscrowError;
  /** What becomes of them while the outcome is unknown; ends a sentence. */
  readonly whileUnknown: string;
  /** What becomes of them after a local commit of which nobody was told; ends a sentence. */
  readonly whileHeld: string;
  /** For a table that is missing at `bind`. */
  missingTable(cause: unknown): EscrowError;
}
