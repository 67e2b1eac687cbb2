import type { CompensationRequest } from '@escrowmq/protocol';
import type { ProducerGroup } from './ports.js';
import type { StoreTime, TraceContext } from './transaction.js';

/*
 * What the store and the callers of producers tell of compensations: of what a consumer group gave up
 * for good, and what the producer is therefore asked to undo.
 */

/** What a consumer group gave up for good. */
export interface CompensationKey {
  id: string;
  /** Number of the message. */
  message: number;
  consumerGroup: string;
}

export interface DueCompensation extends CompensationKey {
  producerGroup: string;
  checkContext?: string;
  businessKeys: string[];
  preparedAt: StoreTime;
  trace: TraceContext;
  /** Sent in one step, without a local transaction that could be asked about. */
  sent?: true;
  /** Of the consumer group: attempts that failed, and why the last one did. */
  failedAttempts?: number;
  cause?: string;
  requestedAt: StoreTime;
  /** Calls begun, the coming one included: counted before it, so that a crash forgets none. */
  attempts: number;
  /** Tries in a row without an answer, calls or not. */
  failures: number;
  alerted: boolean;
}

/** What came of a claimed compensation. */
export interface CompensationToSave {
  due: DueCompensation;
  result:
    | { kind: 'acknowledged' }
    | {
        kind: 'unanswered';
        /** False: no endpoint was called, so it was no attempt. */
        called: boolean;
        dueAt: StoreTime;
        lastFailure: string;
        alerted: boolean;
      };
}

export interface Reversed extends CompensationKey {
  producerGroup: string;
  /** False: it was called, and nobody knows whether it was run. */
  acknowledged: boolean;
}

export type CompensationOutcome =
  | { kind: 'acknowledged'; endpoint: string; tookMs: number }
  /** Without an endpoint none was called. */
  | { kind: 'unanswered'; endpoint?: string; tookMs: number; detail: string };

export interface CompensationCaller {
  /** Never rejects. */
  compensate(
    group: ProducerGroup,
    request: CompensationRequest,
    trace: TraceContext,
  ): Promise<CompensationOutcome>;
  /** Calls to the group that would begin at once; without limit where none would be made. */
  roomFor(group: ProducerGroup): number;
  /** Groups whose endpoints take no further call now. */
  busyGroups(): string[];
}
