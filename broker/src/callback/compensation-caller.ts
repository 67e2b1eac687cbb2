import type { CompensationCaller } from '../domain/compensations.js';
import { compensationQuestion } from './compensation-call.js';
import { type CallerOptions, createProducerCalls } from './producer-calls.js';

/** An acknowledgement has 70 bytes; more room is for spaces. */
const ANSWER_BYTES_MAX = 4_096;

/** Calls producers to compensate what a consumer group has given up for good. */
export function createCompensationCaller(
  options: CallerOptions,
): CompensationCaller & { close(): Promise<void> } {
  const calls = createProducerCalls(
    {
      name: 'compensation',
      urlsOf: ({ compensationUrls }) => compensationUrls,
      answerBytesMax: ANSWER_BYTES_MAX,
    },
    options,
  );
  return {
    ...calls,
    async compensate(group, request, trace) {
      const outcome = await calls.call(group, compensationQuestion(request, trace));
      if (outcome.kind === 'unanswered') return outcome;
      const { endpoint, tookMs } = outcome;
      return { kind: 'acknowledged', endpoint, tookMs };
    },
  };
}
