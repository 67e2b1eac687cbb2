import { randomBytes } from 'node:crypto';
import {
  optionNames,
  ProducerGroupAnswer,
  type ProducerGroupInput,
  ProducerGroupRequest,
  parse,
  refuseUnknown,
} from '@escrowmq/protocol';
import type { createBrokerHttp } from './client/broker-http.js';
import type { Logger } from './logger.js';

/** Options of `registerGroup`. */
export interface RegisterGroupOptions
  extends Omit<ProducerGroupInput, 'signingSecrets' | 'newSecret'> {
  /**
   * The service's own secret, the one that its check handler verifies with: whsec_ and the base64 of
   * 24 to 64 random bytes. `[new, old]` rotates.
   * @default one is made, and is in the answer when the group was created with it or rotated to it
   */
  signingSecret?: string | [current: string, previous: string];
}

const OPTIONS = optionNames<RegisterGroupOptions>({
  checkUrls: true,
  compensationUrls: true,
  checkPolicy: true,
  version: true,
  rotateSecret: true,
  signingSecret: true,
});

/** The width of the HMAC-SHA256 behind it. */
const SECRET_BYTES = 32;

/**
 * The secret is there before the first call, so that a call whose answer was lost is repeated with the
 * same one: whether the broker has made the group or not, it ends with a secret that is known here.
 */
export async function registerGroup(
  deps: {
    http: Pick<ReturnType<typeof createBrokerHttp>, 'call'>;
    logger: Logger;
    producerGroup: string;
    requestTimeoutMs: number;
  },
  given: RegisterGroupOptions,
): Promise<ProducerGroupAnswer> {
  refuseUnknown(given, OPTIONS, 'registerGroup');
  const { signingSecret, ...options } = given;
  const { http, logger, producerGroup, requestTimeoutMs } = deps;
  const own = signingSecret === undefined ? undefined : [signingSecret].flat();
  const secrets =
    own === undefined
      ? { newSecret: `whsec_${randomBytes(SECRET_BYTES).toString('base64')}` }
      : { signingSecrets: own };
  const request = parse(ProducerGroupRequest, { ...options, ...secrets }, 'the producer group');
  const answer = await http.call(
    {
      method: 'PUT',
      path: `/v1/producer-groups/${producerGroup}`,
      body: JSON.stringify(request),
      read: (value) => ProducerGroupAnswer.parse(value),
    },
    requestTimeoutMs,
  );
  const { replaced } = answer;
  if (replaced !== undefined) {
    logger.warn(
      { producerGroup, replaced, checkUrls: answer.checkUrls },
      'the producer group was registered otherwise before; if another service did that, give each its own group',
    );
  }
  const [current] = own ?? [];
  return current === undefined || answer.applied === false
    ? answer
    : { ...answer, signingSecret: current };
}
