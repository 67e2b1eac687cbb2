import { CheckAnswer, type CheckRequest } from '@escrowmq/protocol';
import type { z } from 'zod';
import type { TraceContext } from '../domain/transaction.js';
import { type CallResult, noAnswer, type Question } from './signed-call.js';

/**
 * What became of a local transaction? Only JSON that is exactly a CheckAnswer for the id that was
 * asked is an answer.
 */
export const checkQuestion = (
  request: CheckRequest,
  trace: TraceContext,
): Question<Omit<CheckAnswer, 'id'>> => ({
  messageId: `check_${request.id}_${request.attempt}`,
  request,
  trace,
  readAnswer: (value) => readAnswer(value, request.id),
});

function readAnswer(value: unknown, idAsked: string): CallResult<Omit<CheckAnswer, 'id'>> {
  const parsed = CheckAnswer.safeParse(value);
  if (!parsed.success) {
    return noAnswer(
      `answer is not exactly {"id","decision":"commit"|"rollback"|"unknown"}${wrongField(parsed.error)}`,
    );
  }
  const { id, ...answer } = parsed.data;
  if (id !== idAsked.toLowerCase()) return noAnswer('answered for another id');
  return { kind: 'answer', answer };
}

/** Which part of the data is wrong. What is shown holds names of our fields and numbers only. */
function wrongField({ issues: [first] }: z.ZodError): string {
  if (first?.path[0] !== 'messageData') return '';
  const path = first.path.slice(0, OWN_PATH_MAX).join('.');
  // Of data that can't travel it is known why; other sentences may name what the producer sent.
  const why = first.path[OWN_PATH_MAX - 1] === 'data' ? `, which ${first.message}` : '';
  return ` with "messageData" as prepare left it open: see ${path}${why}`;
}

/** `messageData`, the number, and the field; from there on the names are the producer's. */
const OWN_PATH_MAX = 3;
