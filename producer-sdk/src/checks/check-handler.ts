import { CheckRequest, refuseUnknown } from '@escrowmq/protocol';
import {
  CALLBACK_OPTIONS,
  type CallbackHandler,
  type CallbackOptions,
  type CallbackResponse,
  CHECK,
  createCallbackHandler,
} from './callback-handler.js';
import {
  type CheckDecisionOptions,
  createCheckDecider,
  DECISION_OPTIONS,
} from './check-decider.js';

/**
 * Answers the broker's checks: verifies the signature and decides. It answers 200 only with a
 * decision or with `unknown`, which means "ask again". Whatever else goes wrong is a status that
 * the broker counts as no answer, so that a mistake here decides nothing.
 */
export interface CheckHandlerOptions extends CheckDecisionOptions, CallbackOptions {}

/** What is answered to a check. */
export type CheckResponse = CallbackResponse;
/** Answers one check; made by `createCheckHandler`, and served by one of the mounts. */
export type CheckHandler = CallbackHandler;

/**
 * Makes the handler that answers the broker's checks, each by the barrier in the service's own
 * database.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION: no or a malformed secret, no database, or both kinds
 * @example
 * const check = createCheckHandler({ signingSecret: process.env.CHECK_SECRET, database: pool });
 * http.createServer(nodeCheckListener(check)).listen(8080);
 */
export function createCheckHandler(options: CheckHandlerOptions): CheckHandler {
  refuseUnknown(options, [...CALLBACK_OPTIONS, ...DECISION_OPTIONS], 'createCheckHandler');
  const { decide, answerTimeoutMs, logger } = createCheckDecider(options);
  return createCallbackHandler(options, {
    kind: CHECK,
    schema: CheckRequest,
    answerTimeoutMs,
    logger,
    answer: (check, deadline) => decide(check, deadline.leftMs),
  });
}
