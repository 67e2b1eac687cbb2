import type { ErrorCode } from '@escrowmq/protocol';
import { BLOCKED_LOOK_AGAIN_MS } from './ordering.js';
import {
  backOffMs,
  type CheckSchedule,
  FORWARD_BACK_OFF,
  type ForwardPolicy,
  INTERRUPTED_AGAIN_MS,
} from './schedule.js';
import {
  allMessages,
  type MessageMask,
  type State,
  type StoreTime,
  withoutMessages,
} from './transaction.js';

/**
 * Every event on every state, and nothing else: no I/O, no clock. The store's guards repeat these
 * rules in SQL, and its contract suite holds the two together.
 */
export type Outcome =
  | { kind: 'move'; to: State }
  /** Already where the caller wants it, or nothing to do for this event. */
  | { kind: 'keep' }
  | { kind: 'refuse'; code: ErrorCode };

const keep: Outcome = { kind: 'keep' };
const conflict: Outcome = { kind: 'refuse', code: 'STATE_CONFLICT' };
const move = (to: State): Outcome => ({ kind: 'move', to });

/** Takes `never`: a new state stops the build at every switch that forgot it. */
function unreachable(state: never): never {
  throw new Error(`no rule for ${JSON.stringify(state)}`);
}

const committedNow = (messages: number, now: StoreTime): State => ({
  state: 'committed',
  pending: allMessages(messages),
  attempts: 0,
  dueAt: now,
});

/**
 * A verdict: commit. From the producer, a check's answer or an operator alike. Safe to repeat: a
 * producer that lost our reply will ask again.
 */
export function commit(current: State, messages: number, now: StoreTime): Outcome {
  switch (current.state) {
    case 'prepared':
      return move(committedNow(messages, now));
    case 'committed':
    case 'forwarded':
      return keep;
    case 'rolledBack':
      return conflict;
    case 'parked':
      // Unresolved: a late verdict is still the truth. Undeliverable: it is committed already,
      // and only an operator may send it again.
      return current.reason === 'unresolved' ? move(committedNow(messages, now)) : keep;
    default:
      return unreachable(current);
  }
}

/** A verdict: rollback. */
export function rollback(current: State, now: StoreTime): Outcome {
  switch (current.state) {
    case 'prepared':
      return move({ state: 'rolledBack', decidedAt: now });
    case 'committed':
    case 'forwarded':
      return conflict;
    case 'rolledBack':
      return keep;
    case 'parked':
      return current.reason === 'unresolved'
        ? move({ state: 'rolledBack', decidedAt: now })
        : conflict;
    default:
      return unreachable(current);
  }
}

/** The answer "unknown": the only one that spends an attempt. Spent all: parked, never rolled back. */
export function checkSaidUnknown(current: State, policy: CheckSchedule, now: StoreTime): Outcome {
  if (current.state !== 'prepared') return keep;
  const checks = current.checks + 1;
  if (checks >= policy.unknownMax) {
    return move({ state: 'parked', reason: 'unresolved', parkedAt: now });
  }
  const dueAt = now + backOffMs(policy, checks);
  return move({ state: 'prepared', checks, unanswered: 0, dueAt });
}

/** No answer, whatever the cause: nothing is spent, the next check comes later. */
export function checkUnanswered(current: State, policy: CheckSchedule, now: StoreTime): Outcome {
  if (current.state !== 'prepared') return keep;
  const unanswered = current.unanswered + 1;
  const dueAt = now + backOffMs(policy, unanswered);
  return move({ ...current, unanswered, dueAt });
}

/** What became of one round of publishing a transaction's pending messages. */
export interface Forwarding {
  /** Confirmed and not returned, or dropped because the caller said so. */
  done: MessageMask;
  /** Why the rest is not done; absent when all is. */
  failure?: 'unroutable' | 'nacked' | 'unconfirmed' | 'interrupted' | 'refused';
  /** When the first of what waits and was not published may go; absent when nothing waits. */
  nextDueAt?: StoreTime | undefined;
  /** Some were not published because others of their ordering key must go first. */
  blocked?: boolean;
}

/**
 * A confirm clears its bit, so nothing confirmed is ever sent again. Unroutable or refused
 * messages are parked in the end, because nobody may ever come for them; a RabbitMQ that nacks or
 * does not confirm is tried for as long as it takes.
 *
 * What another message's refusal interrupted has spent no attempt, and goes again at once.
 *
 * What waits for its time keeps the transaction from being parked, which would hold it up as well;
 * and where nothing failed, waiting is no attempt. What waits for others of its key does not keep it
 * from that: a parked transaction holds all of its keys until somebody sends it again.
 */
export function forwarded(
  current: State,
  result: Forwarding,
  policy: ForwardPolicy,
  now: StoreTime,
): Outcome {
  if (current.state !== 'committed') return keep;
  const pending = withoutMessages(current.pending, result.done);
  if (pending === 0) return move({ state: 'forwarded', forwardedAt: now });
  const { failure, nextDueAt, blocked = false } = result;
  if (failure === undefined && (nextDueAt !== undefined || blocked)) {
    return move({ ...current, pending, dueAt: nextDueAt ?? now + BLOCKED_LOOK_AGAIN_MS });
  }
  if (failure === 'interrupted') {
    const dueAt = now + INTERRUPTED_AGAIN_MS;
    return move({ ...current, pending, dueAt: Math.min(dueAt, nextDueAt ?? dueAt) });
  }
  const attempts = current.attempts + 1;
  const mayEnd = failure === 'unroutable' || failure === 'refused';
  if (mayEnd && nextDueAt === undefined && attempts >= policy.undeliverableAttemptsMax) {
    return move({ state: 'parked', reason: 'undeliverable', pending, parkedAt: now });
  }
  const againAt = now + backOffMs(FORWARD_BACK_OFF, attempts);
  const dueAt = Math.min(againAt, nextDueAt ?? againAt);
  return move({ state: 'committed', pending, attempts, dueAt });
}

/** An operator asks for another check, at once and with all attempts. */
export function recheck(current: State, now: StoreTime): Outcome {
  switch (current.state) {
    case 'prepared':
      return move({ ...current, dueAt: now });
    case 'parked':
      return current.reason === 'unresolved'
        ? move({ state: 'prepared', checks: 0, unanswered: 0, dueAt: now })
        : conflict;
    case 'committed':
    case 'forwarded':
    case 'rolledBack':
      return conflict;
    default:
      return unreachable(current);
  }
}

/** An operator asks that what is still pending be sent again, at once. */
export function resend(current: State, now: StoreTime): Outcome {
  switch (current.state) {
    case 'committed':
      return move({ ...current, dueAt: now });
    case 'parked':
      return current.reason === 'undeliverable'
        ? move({ state: 'committed', pending: current.pending, attempts: 0, dueAt: now })
        : conflict;
    case 'prepared':
    case 'forwarded':
    case 'rolledBack':
      return conflict;
    default:
      return unreachable(current);
  }
}

/** Retention may take only what is finished; nothing open is ever dropped. */
export function mayPurge(current: State): boolean {
  switch (current.state) {
    case 'forwarded':
    case 'rolledBack':
      return true;
    case 'prepared':
    case 'committed':
    case 'parked':
      return false;
    default:
      return unreachable(current);
  }
}
