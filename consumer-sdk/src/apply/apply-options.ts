import type { TransactionLimits } from '@escrowmq/database';
import {
  ConsumerGroupName,
  EscrowError,
  kindOf,
  optionNames,
  parse,
  parseMessageId,
  refuseUnknown,
  requireFunction,
  textOfError,
} from '@escrowmq/protocol';
import type { Message } from '../delivery/message.js';
import type { WorkCall } from '../events.js';
import type { DuplicateFront } from './duplicate-front.js';

/** What `once` and `latest` need of a message, so that a test or a replay can call them without one. */
export type OnceMessage = Pick<Message, 'id' | 'group'> & Partial<Pick<Message, 'signal'>>;

/** Options of `once`, `onceBatch` and `latest`. */
export interface ApplyOptions {
  /** Spares the database what was applied by this process before. @default none */
  front?: DuplicateFront;
  /** For getting a connection, in ms. @default 30000 */
  connectionTimeoutMs?: number;
  /** For the answer to COMMIT, in ms; after that its outcome is unknown. @default 10000 */
  commitTimeoutMs?: number;
  /**
   * Begun inside the callback of another transaction on the same database, it commits by itself,
   * whatever becomes of that one. @default false: such a one is refused, TRANSACTION_MISUSED
   */
  separate?: boolean;
}

/** A pool smaller than the subscription's concurrency makes handlers wait; half of their time. */
const CONNECTION_TIMEOUT_MS_DEFAULT = 30_000;
/** A COMMIT takes milliseconds; one that takes this long hangs on a connection that is gone. */
const COMMIT_TIMEOUT_MS_DEFAULT = 10_000;
/** A timer of Node holds at most this much; more would fire at once. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

const APPLY_OPTIONS = optionNames<ApplyOptions>({
  front: true,
  connectionTimeoutMs: true,
  commitTimeoutMs: true,
  separate: true,
});

/**
 * @param where takes them, and what else it takes
 * @throws {EscrowError} INVALID_CONFIGURATION or UNKNOWN_FIELD
 */
export function limitsOf(
  options: ApplyOptions,
  where: WorkCall,
  others: readonly string[] = [],
): TransactionLimits {
  refuseUnknown(options, [...others, ...APPLY_OPTIONS], where);
  checkFront(options.front, where);
  const {
    connectionTimeoutMs = CONNECTION_TIMEOUT_MS_DEFAULT,
    commitTimeoutMs = COMMIT_TIMEOUT_MS_DEFAULT,
  } = options;
  checkTimeout('connectionTimeoutMs', connectionTimeoutMs);
  checkTimeout('commitTimeoutMs', commitTimeoutMs);
  return { connectionTimeoutMs, commitTimeoutMs };
}

function checkFront(front: DuplicateFront | undefined, where: WorkCall): void {
  if (front === undefined) return;
  for (const name of ['isApplied', 'noteApplied', 'newest', 'noteNewest'] as const) {
    requireFunction(front?.[name], `front.${name}`, where);
  }
}

function checkTimeout(name: string, value: number): void {
  if (Number.isInteger(value) && value >= 1 && value <= TIMEOUT_MS_MAX) return;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `${name} must be a whole number of ms from 1 to ${TIMEOUT_MS_MAX}, got ${textOfError(value)}`,
  );
}

/** @throws {EscrowError} INVALID_REQUEST, INVALID_NAME or INVALID_ID, before anything is touched */
export function checkMessage(message: OnceMessage, where: WorkCall): void {
  if (typeof message !== 'object' || message === null) {
    throw new EscrowError(
      'INVALID_REQUEST',
      `${where} takes the message that a handler got, or { id, group }, and was given ${kindOf(message)}`,
    );
  }
  const { id, group } = message;
  parse(ConsumerGroupName, group, 'message.group');
  if (parseMessageId(id) === undefined) {
    throw new EscrowError('INVALID_ID', 'message.id is not <transaction id>-<number>');
  }
}
