import type { TransactionLimits } from '@escrowmq/database';
import { ConsumerGroupName, EscrowError, parse, parseMessageId } from '@escrowmq/protocol';
import type { Message } from '../delivery/message.js';
import type { DuplicateFront } from './duplicate-front.js';

/** What `once` and `latest` need of a message, so that a test or a replay can call them without one. */
export type OnceMessage = Pick<Message, 'id' | 'group'> & Partial<Pick<Message, 'signal'>>;

export interface ApplyOptions {
  /** Spares the database what was applied by this process before. @default none */
  front?: DuplicateFront;
  /** For getting a connection, in ms. @default 30000 */
  connectionTimeoutMs?: number;
  /** For the answer to COMMIT, in ms; after that its outcome is unknown. @default 10000 */
  commitTimeoutMs?: number;
}

/** A pool smaller than the subscription's concurrency makes handlers wait; half of their time. */
const CONNECTION_TIMEOUT_MS_DEFAULT = 30_000;
/** A COMMIT takes milliseconds; one that takes this long hangs on a connection that is gone. */
const COMMIT_TIMEOUT_MS_DEFAULT = 10_000;
/** A timer of Node holds at most this much; more would fire at once. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** @throws {EscrowError} INVALID_CONFIGURATION */
export function limitsOf(options: ApplyOptions): TransactionLimits {
  const {
    connectionTimeoutMs = CONNECTION_TIMEOUT_MS_DEFAULT,
    commitTimeoutMs = COMMIT_TIMEOUT_MS_DEFAULT,
  } = options;
  checkTimeout('connectionTimeoutMs', connectionTimeoutMs);
  checkTimeout('commitTimeoutMs', commitTimeoutMs);
  return { connectionTimeoutMs, commitTimeoutMs };
}

function checkTimeout(name: string, value: number): void {
  if (Number.isInteger(value) && value >= 1 && value <= TIMEOUT_MS_MAX) return;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `${name} must be a whole number of ms from 1 to ${TIMEOUT_MS_MAX}, got ${value}`,
  );
}

/** @throws {EscrowError} INVALID_NAME or INVALID_ID, before anything is touched */
export function checkMessage({ id, group }: OnceMessage): void {
  parse(ConsumerGroupName, group, 'message.group');
  if (parseMessageId(id) === undefined) {
    throw new EscrowError('INVALID_ID', 'message.id is not <transaction id>-<number>');
  }
}
