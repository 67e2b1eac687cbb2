import { type CancelAnswer, type CancelRequest, EscrowError } from '@escrowmq/protocol';
import type { CancelRefusal, NotCancellable } from '../domain/cancelling.js';
import type { Store } from '../domain/ports.js';
import { hasMessage, type MessageMask } from '../domain/transaction.js';

/**
 * Takes back delayed messages that have not come due. The store decides, in one guarded change with
 * the record of it; nothing is kept here, so a crash or a repeat changes nothing.
 */
export interface CancelDeps {
  store: Pick<Store, 'cancel'>;
}

const BITS = 32;

const numbersOf = (mask: MessageMask): number[] =>
  Array.from({ length: BITS }, (_, number) => number).filter((number) => hasMessage(mask, number));

const WHY: Record<NotCancellable, string> = {
  undecided: 'has no decision yet',
  rolledBack: 'is rolled back',
  notDelayed: 'has neither deliverAt nor delayMs',
  due: 'has come due',
  forwarded: 'has left',
  unrouted: 'has left, and nobody was bound for it',
};

function refused(id: string, refusal: CancelRefusal): EscrowError {
  const legal =
    'only delayed messages of a committed transaction can be cancelled, before their time';
  switch (refusal.kind) {
    case 'noSuchMessage': {
      const { numbers, messageCount } = refusal;
      return new EscrowError(
        'INVALID_REQUEST',
        `transaction ${id} has no message ${numbers.join(', ')}; its messages are 0 to ${messageCount - 1}`,
        { fields: [{ path: 'messages', message: `must be below ${messageCount}` }] },
      );
    }
    case 'purged':
      return new EscrowError(
        'MESSAGE_NOT_CANCELLABLE',
        `transaction ${id} is finished and purged; ${legal}`,
        { details: { id, state: refusal.state, purged: true } },
      );
    case 'notCancellable': {
      const { state, messages } = refusal;
      const each = messages.map(({ number, why }) => `message ${number} ${WHY[why]}`).join(', ');
      const hint = messages.some(({ why }) => why === 'undecided')
        ? 'roll the transaction back instead'
        : legal;
      return new EscrowError(
        'MESSAGE_NOT_CANCELLABLE',
        `nothing of transaction ${id} was cancelled: ${each}; ${hint}`,
        { details: { id, state, notCancellable: messages } },
      );
    }
  }
}

export function createCancel({
  store,
}: CancelDeps): (
  id: string,
  request: CancelRequest,
  producerGroup: string | undefined,
) => Promise<CancelAnswer> {
  return async (id, { messages, operator, reason }, producerGroup) => {
    const by = operator === undefined ? 'producer' : `operator ${operator}`;
    const result = await store.cancel({ id, producerGroup, numbers: messages, by, reason });
    switch (result.kind) {
      case 'cancelled':
        return { id, state: result.state, cancelled: numbersOf(result.cancelled) };
      case 'refused':
        throw refused(id, result.refusal);
      case 'unknown':
        throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
    }
  };
}
