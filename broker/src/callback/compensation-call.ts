import { CompensationAnswer, type CompensationRequest } from '@escrowmq/protocol';
import type { TraceContext } from '../domain/transaction.js';
import { noAnswer, type Question } from './signed-call.js';

/**
 * The same for every attempt, as Standard Webhooks has it, so that a receiver may tell a repeat by
 * it. Names of groups may have dots, which the signed text separates its parts with.
 */
function messageIdOf({ id, message, consumerGroup }: CompensationRequest): string {
  return `compensation_${id}_${message}_${Buffer.from(consumerGroup).toString('base64url')}`;
}

/** Undo what a message announced. Only JSON that is exactly a CompensationAnswer for the id is one. */
export const compensationQuestion = (
  request: CompensationRequest,
  trace: TraceContext,
): Question<'acknowledged'> => ({
  messageId: messageIdOf(request),
  request,
  trace,
  readAnswer(value) {
    const parsed = CompensationAnswer.safeParse(value);
    if (!parsed.success) return noAnswer('answer is not exactly {"id","acknowledged":true}');
    return parsed.data.id === request.id.toLowerCase()
      ? { kind: 'answer', answer: 'acknowledged' }
      : noAnswer('answered for another id');
  },
});
