import {
  CheckAnswer,
  EscrowError,
  PollChecksAnswer,
  PollChecksRequest,
  PollOfAnswers,
  ProducerGroupName,
  parse,
  parseOuter,
} from '@escrowmq/protocol';
import { z } from 'zod';
import { requireGroup } from './api-keys.js';
import type { HttpDeps } from './deps.js';
import type { Route } from './route.js';

interface CheckLimits {
  /** Answers may bring the data of their transactions. */
  bodyBytesMax: number;
}

/** The answers that are some, and the first that is none. */
function judged(answers: readonly unknown[]): { right: CheckAnswer[]; wrong?: EscrowError } {
  const right: CheckAnswer[] = [];
  let wrong: EscrowError | undefined;
  answers.forEach((answer, number) => {
    try {
      right.push(parse(CheckAnswer, answer, `answers.${number}`));
    } catch (error) {
      if (!(error instanceof EscrowError)) throw error;
      wrong ??= error;
    }
  });
  return wrong === undefined ? { right } : { right, wrong };
}

/** Checks for producers that the broker can't call. */
export function checkRoutes(deps: Pick<HttpDeps, 'pollChecks'>, limits: CheckLimits): Route[] {
  return [
    {
      method: 'POST',
      url: '/v1/producer-groups/:group/checks',
      access: ['producer'],
      bodyBytesMax: limits.bodyBytesMax,
      operationId: 'pollChecks',
      summary: 'Poll for checks, for producers that the broker can not call',
      description:
        'Takes the answers to earlier checks first. Then answers as soon as there are checks for the group, or empty when waitMs is over or the broker shuts down. A check is to be answered within timeoutMs of the check policy; a later answer decides as well, unless something else has decided. An answer that is none has the poll refused, after the others were taken.',
      params: z.object({ group: ProducerGroupName }),
      body: PollChecksRequest,
      answers: { 200: { description: 'Checks to answer, or none', schema: PollChecksAnswer } },
      problems: [
        'INVALID_ID',
        'INVALID_NAME',
        'INVALID_BASE64',
        'TOO_MANY_MESSAGES',
        'PRODUCER_GROUP_NOT_FOUND',
        'BROKER_BUSY',
        'STORE_UNAVAILABLE',
      ],
      async handle(call) {
        const producerGroup = parse(
          ProducerGroupName,
          call.params.group,
          'the producer group in the path',
        );
        requireGroup(call.caller, producerGroup);
        const request = parseOuter(PollOfAnswers, call.body, 'the request');
        const { right: answers, wrong } = judged(request.answers);
        // Refused for the wrong one, but not before the others have been taken, and without a check.
        const signal = wrong === undefined ? call.untilGone() : AbortSignal.abort();
        const checks = await deps.pollChecks({ ...request, answers, producerGroup, signal });
        if (wrong !== undefined) throw wrong;
        return { body: { checks } };
      },
    },
  ];
}
