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
  if (reachesPrototype(answer.messageData)) {
    return noAnswer('"messageData" has a key that would reach a prototype');
  }
  return { kind: 'answer', answer };
}

/** What the broker refuses in a request too, on behalf of those who consume it. */
function reachesPrototype(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (Object.hasOwn(value, '__proto__')) return true;
  return Object.entries(value).some(([key, child]) => {
    if (key !== 'constructor' || typeof child !== 'object') return reachesPrototype(child);
    return (child !== null && Object.hasOwn(child, 'prototype')) || reachesPrototype(child);
  });
}

/** Which part of the data is wrong. Paths hold names of our fields and numbers only. */
function wrongField({ issues: [first] }: z.ZodError): string {
  if (first?.path[0] !== 'messageData') return '';
  return ` with "messageData" as prepare left it open: see ${first.path.join('.')}`;
}
