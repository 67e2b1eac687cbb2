import { LIMITS } from '@escrowmq/protocol';
import type { Asker } from '../domain/ports.js';
import { checkQuestion } from './check-call.js';
import { type CallerOptions, createProducerCalls } from './producer-calls.js';

export interface AskerOptions extends CallerOptions {
  /** An answer may bring the data of a transaction. @default LIMITS.transactionBytesMax */
  answerBytesMax?: number;
}

/**
 * Asks producers what became of their local transactions.
 *
 * @example
 * const allow = createCallbackPolicy({ allow: '', loopbackAllowed: true });
 * const asker = createAsker({ allow, observer, storeNow: () => clock.now() });
 * const outcome = await asker.ask(group, { id, producerGroup, businessKeys: [], preparedAt, attempt: 1 });
 */
export function createAsker(options: AskerOptions): Asker & { close(): Promise<void> } {
  const { answerBytesMax = LIMITS.transactionBytesMax } = options;
  const calls = createProducerCalls(
    { name: 'check', urlsOf: ({ checkUrls }) => checkUrls, answerBytesMax },
    options,
  );
  return {
    ...calls,
    async ask(group, request, trace = {}) {
      const outcome = await calls.call(group, checkQuestion(request, trace));
      if (outcome.kind === 'unanswered') return outcome;
      const { answer, ...about } = outcome;
      return { ...about, ...answer };
    },
  };
}
