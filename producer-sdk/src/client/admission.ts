import { EscrowError } from '@escrowmq/protocol';
import type { ProducerLimits } from '../options.js';
import type { Operation } from './operation-json.js';

/**
 * Bounds what waits for the broker, each operation from its call to its end: while it waits for a
 * batch, for the answer, and for the time at which the broker wants to be asked again. The queue
 * before the batches knows only the first of these; a busy broker that puts everything off would
 * let the last one grow without a limit.
 *
 * A verdict is refused last: it ends something at the broker, a prepare or send adds to it. What
 * was let in once is never refused by a repeat, so a refusal from here means that nothing of the
 * operation was ever sent.
 */
export interface Admission {
  /** @throws {EscrowError} BROKER_BUSY, which names the limit */
  enter(operation: Operation): void;
  /** For one that entered, once, when nothing will be done for it any more. */
  leave(operation: Operation): void;
}

export type AdmissionLimits = Pick<
  ProducerLimits,
  'operationsWaitingMax' | 'operationsWaitingBytesMax'
>;

/** How far the limits stretch for verdicts: whoever was let in with a prepare can also end it. */
const VERDICT_FACTOR = 2;

export function createAdmission(limits: AdmissionLimits): Admission {
  const { operationsWaitingMax, operationsWaitingBytesMax } = limits;
  let operations = 0;
  let bytes = 0;

  function requireRoom(operation: Operation): void {
    const isVerdict = operation.op === 'commit' || operation.op === 'rollback';
    const factor = isVerdict ? VERDICT_FACTOR : 1;
    if (operations >= operationsWaitingMax * factor) {
      throw busy(
        operation,
        `${operations} operations`,
        `operationsWaitingMax, ${operationsWaitingMax}`,
      );
    }
    // What waits alone may be of any size: otherwise it could never be sent.
    if (operations > 0 && bytes + operation.bytes > operationsWaitingBytesMax * factor) {
      throw busy(
        operation,
        `${bytes} bytes`,
        `operationsWaitingBytesMax, ${operationsWaitingBytesMax}`,
      );
    }
  }

  return {
    enter(operation) {
      requireRoom(operation);
      operations += 1;
      bytes += operation.bytes;
    },
    leave(operation) {
      operations -= 1;
      bytes -= operation.bytes;
    },
  };
}

function busy({ op, id, bytes }: Operation, waiting: string, limit: string): EscrowError {
  return new EscrowError(
    'BROKER_BUSY',
    `${op} of ${id} (${bytes} bytes) was not sent: ${waiting} wait for the broker already (${limit}); send fewer at a time, or try again when some have ended`,
  );
}
