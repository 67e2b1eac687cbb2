import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '@escrowmq/database';
import {
  type CheckAnswer,
  CheckRequest,
  isEscrowError,
  type PollChecksInput,
  PolledChecks,
} from '@escrowmq/protocol';
import { backOffMs, pauseBeforeRepeatMs } from '../back-off.js';
import { createBrokerHttp } from '../client/broker-http.js';
import { createPollLength } from '../client/poll-length.js';
import type { ProducerSettings } from '../options.js';
import type { CheckDecider } from './check-decider.js';

/**
 * One broker address that is polled for checks. Two kinds of calls go there, on connections of
 * their own: a poll waits for checks, and a delivery brings one answer at once, without waiting, and
 * may return with the next check. So an answer never waits for a poll to end.
 *
 * Each check and what follows it is a chain: decide, deliver, and again while deliveries return with
 * a check. A poll asks for no more checks than chains may still begin, so there are never more than
 * `concurrencyMax` of them.
 *
 * A crash forgets the chains, and an answer that can't be delivered is dropped: a decision is
 * durable in the barrier, and the broker asks again.
 */
export interface PolledBroker {
  /**
   * @returns how many checks were answered
   * @throws {EscrowError} the broker's refusal, or BROKER_UNREACHABLE
   */
  pollOnce(waitMs: number): Promise<number>;
  /** Polls until `close`, and rests for a back-off, or the broker's `Retry-After`, after a failure. */
  keepPolling(waitMs: number): void;
  /** Ends the poll under way, and waits for the chains under way. */
  close(): Promise<void>;
}

export interface PolledBrokerDeps {
  decider: CheckDecider;
  concurrencyMax: number;
  /** With the one address. */
  settings: ProducerSettings;
}

/** A poll is answered a little after its wait; a broker that says nothing for longer is gone. */
const POLL_SLACK_MS = 5_000;

/** Between polls on a way that cuts them. */
const POLL_PAUSE_MS = 200;

const CUT =
  'polls for checks are cut on their way to the broker; they are shorter from now on. Give waitMs a value below the limit of whatever stands between';

/** Longer than any broker asks for; what a proxy on the way says may be anything. */
const RETRY_AFTER_MS_MAX = 5 * 60 * 1_000;

export function createPolledBroker(deps: PolledBrokerDeps): PolledBroker {
  const { decider, concurrencyMax, settings } = deps;
  const { logger, requestTimeoutMs } = settings;
  const [broker] = settings.brokerOrigins;
  const polls = createBrokerHttp(settings);
  const deliveries = createBrokerHttp(settings);
  const closing = new AbortController();
  const chains = new Set<Promise<number>>();
  let polling: Promise<void> | undefined;

  const request = (body: PollChecksInput) =>
    ({
      method: 'POST',
      path: `/v1/producer-groups/${settings.producerGroup}/checks`,
      body: JSON.stringify(body),
      read: readChecks,
    }) as const;

  /** Each by itself: one that can not be read is asked again, and the others are answered. */
  function readChecks(value: unknown): CheckRequest[] {
    const given = PolledChecks.parse(value).checks.map((check) => CheckRequest.safeParse(check));
    const checks = given.flatMap(({ data }) => (data === undefined ? [] : [data]));
    const error = given.find((check) => !check.success)?.error;
    if (error === undefined) return checks;
    if (checks.length === 0) throw error;
    logger.warn({ broker, error }, 'a broker gave a check that can not be read');
    return checks;
  }

  /** One attempt; whoever polls has a back-off of his own. */
  function poll(waitMs: number, limit: number): Promise<CheckRequest[]> {
    const longPollMs = waitMs + POLL_SLACK_MS;
    const sent = request({ waitMs, limit });
    return polls.call({ ...sent, longPollMs, repeatable: false }, longPollMs);
  }

  /** @returns whether the broker has the answer, and the check that it gave in return */
  async function deliver(answer: CheckAnswer) {
    try {
      const sent = request({ waitMs: 0, limit: 1, answers: [answer] });
      const [next] = await deliveries.call(sent, requestTimeoutMs);
      return { isDelivered: true, next };
    } catch (error) {
      const fields = { transactionId: answer.id, broker, error };
      logger.warn(fields, 'the answer to a check did not reach the broker, which will ask again');
      return { isDelivered: false, next: undefined };
    }
  }

  async function answerChain(first: CheckRequest): Promise<number> {
    let answered = 0;
    let check: CheckRequest | undefined = first;
    while (check !== undefined) {
      const answer = await decider.decide(check, decider.answerTimeoutMs);
      const { isDelivered, next } = await deliver(answer);
      if (isDelivered) answered += 1;
      // While it closes, what comes in return is left to the next time the broker asks.
      check = closing.signal.aborted ? undefined : next;
    }
    return answered;
  }

  function begin(check: CheckRequest): Promise<number> {
    const chain = answerChain(check).finally(() => chains.delete(chain));
    chains.add(chain);
    return chain;
  }

  /** Sleeps, and wakes up at once when it closes. */
  async function rest(delayMs: number): Promise<void> {
    await sleep(delayMs, undefined, { signal: closing.signal }).catch(() => undefined);
  }

  /** One poll, or as many as it takes on a way that cuts them; the last one does not wait. */
  async function pollWithin(waitMs: number): Promise<CheckRequest[]> {
    const length = createPollLength(waitMs);
    const deadline = new Deadline(waitMs);
    let wasCut = false;
    for (let pollMs = waitMs; ; pollMs = deadline.hasPassed ? 0 : length.next(deadline.leftMs)) {
      const startedAt = performance.now();
      try {
        const checks = await poll(pollMs, concurrencyMax);
        if (checks.length > 0 || !wasCut || pollMs === 0) return checks;
      } catch (error) {
        const lastedMs = performance.now() - startedAt;
        if (closing.signal.aborted || !isCut(error) || !length.failed(pollMs, lastedMs))
          throw error;
        wasCut = true;
      }
      await rest(POLL_PAUSE_MS);
    }
  }

  async function pollUntilClosed(waitMs: number): Promise<void> {
    const length = createPollLength(waitMs);
    let failures = 0;
    let hastyPolls = 0;
    let saidCut = false;
    while (!closing.signal.aborted) {
      if (chains.size >= concurrencyMax) await Promise.race(chains);
      const startedAt = performance.now();
      const pollMs = length.next(waitMs);
      try {
        const checks = await poll(pollMs, concurrencyMax - chains.size);
        length.succeeded();
        failures = 0;
        for (const check of checks) void begin(check);
        // One that is shutting down, or has too many who wait, answers without waiting.
        const isHasty = checks.length === 0 && performance.now() - startedAt < pollMs / 2;
        hastyPolls = isHasty ? hastyPolls + 1 : 0;
        if (isHasty) await rest(backOffMs(hastyPolls));
      } catch (error) {
        if (closing.signal.aborted) return;
        if (isCut(error) && length.failed(pollMs, performance.now() - startedAt)) {
          // The way is there, it only does not wait that long: the next poll is shorter.
          if (!saidCut) logger.warn({ broker, error }, CUT);
          saidCut = true;
          await rest(POLL_PAUSE_MS);
          continue;
        }
        failures += 1;
        // Once for a row of failures: the broker raises an alert when its checks stay unanswered.
        if (failures === 1) logger.warn({ broker, error }, 'a broker can not be polled for checks');
        await rest(pauseBeforeRepeatMs(failures, retryAfterMsOf(error)));
      }
    }
  }

  return {
    async pollOnce(waitMs) {
      const checks = await pollWithin(waitMs);
      const answered = await Promise.all(checks.map(begin));
      return answered.reduce((sum, count) => sum + count, 0);
    },
    keepPolling(waitMs) {
      polling = pollUntilClosed(waitMs);
    },
    async close() {
      closing.abort();
      await polls.close();
      await polling;
      await Promise.all(chains);
      await deliveries.close();
    },
  };
}

/** What a broker refused is no cut. */
const isCut = (error: unknown): boolean =>
  isEscrowError(error) && error.code === 'BROKER_UNREACHABLE';

/** How long it asked to be left alone, in milliseconds; 0 when it did not. */
function retryAfterMsOf(error: unknown): number {
  const seconds = isEscrowError(error) ? error.details.retryAfterSeconds : undefined;
  return typeof seconds === 'number' ? Math.min(seconds * 1_000, RETRY_AFTER_MS_MAX) : 0;
}
