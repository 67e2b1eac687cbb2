import { Deadline } from '@escrowmq/database';
import { type CheckAnswer, type CheckRequest, EscrowError } from '@escrowmq/protocol';
import type { CheckOutcome } from '../../broker/src/domain/ports.js';
import { pauseBeforeRepeatMs } from '../../producer-sdk/src/back-off.js';
import type { BrokerHttp } from '../../producer-sdk/src/client/broker-http.js';
import type { Faults } from './faults.js';
import type { Process, Scheduler } from './scheduler.js';

/*
 * The network between producers and brokers, both ways. Requests and answers get lost, come late, or
 * come twice; a dead process refuses. The sender repeats at the next address as the SDK's own HTTP
 * client does, whose sockets are the one part of the SDK that is not here.
 */
export interface Wire {
  scheduler: Scheduler;
  faults: Faults;
  server: Process;
}

/** A process that takes requests, while it is alive and ready. */
export interface Endpoint<Request, Answer> {
  process: Process;
  serve(request: Request): Promise<Answer>;
}

const ATTEMPT_MS_MAX = 1_000;

/** One request and its answer; undefined for whatever is no answer. */
function exchange<Request, Answer>(
  { scheduler, faults }: Wire,
  ends: { from: Process; to: Endpoint<Request, Answer> | undefined; what: string },
  { request, limitMs }: { request: Request; limitMs: number },
): Promise<Answer | undefined> {
  const { from, to, what } = ends;
  return new Promise((resolve) => {
    const run = () => resolve(undefined);
    const limit = scheduler.after(from, limitMs, { name: `no answer to ${what}`, run });
    const end = (answer: Answer | undefined) => {
      scheduler.cancel(limit);
      resolve(answer);
    };
    if (to === undefined || !to.process.isAlive) {
      scheduler.park(from, `${what} is refused`, () => end(undefined));
      return;
    }
    if (faults.strike(`${what} is lost`)) return;
    const serve = () => {
      void to.serve(request).then((answer) => {
        if (faults.strike(`the answer to ${what} is lost`)) return;
        scheduler.park(from, `${what} answered`, () => end(answer));
      });
    };
    scheduler.park(to.process, what, serve);
    if (faults.strike(`${what} comes twice`)) scheduler.park(to.process, `${what}, again`, serve);
  });
}

/** The HTTP port of the SDK, as one producer process has it. */
export function brokerHttp(
  wire: Wire,
  from: Process,
  brokers: () => (Endpoint<string, string> | undefined)[],
): BrokerHttp {
  let preferred = wire.scheduler.random.below(2);
  const unreachable = (timeoutMs: number) =>
    new EscrowError('BROKER_UNREACHABLE', `no broker gave an answer within ${timeoutMs} ms`);
  return {
    unreachable,
    mayAskElsewhere: () => false,
    close: () => Promise.resolve(),
    async call({ body = '', read }, timeoutMs) {
      const deadline = new Deadline(timeoutMs);
      for (let failures = 1; ; failures += 1) {
        const all = brokers();
        const limitMs = Math.min(ATTEMPT_MS_MAX, deadline.leftMs);
        const ends = { from, to: all[preferred % all.length], what: nameOf(wire, body) };
        const text = await exchange(wire, ends, { request: body, limitMs });
        if (text !== undefined) return read(JSON.parse(text));
        preferred += 1;
        const pauseMs = failures < all.length ? 0 : pauseBeforeRepeatMs(failures, 0);
        if (deadline.hasPassed || !(await deadline.pause(pauseMs))) throw unreachable(timeoutMs);
      }
    },
  };
}

/** For traces: the operations in a body. */
function nameOf({ scheduler }: Wire, body: string): string {
  if (scheduler.trace === undefined) return 'a request';
  return [...body.matchAll(/"op":"(\w+)"/g)].map(([, op]) => op).join(' and ');
}

/** The check port of one broker. */
export async function askProducer(
  wire: Wire,
  ends: { from: Process; to: Endpoint<CheckRequest, CheckAnswer> | undefined },
  { request, limitMs }: { request: CheckRequest; limitMs: number },
): Promise<CheckOutcome> {
  const startedAt = performance.now();
  const answer = await exchange(wire, { ...ends, what: 'check' }, { request, limitMs });
  const tookMs = performance.now() - startedAt;
  if (answer === undefined) return { kind: 'unanswered', tookMs, detail: 'no answer' };
  return { kind: 'answered', decision: answer.decision, endpoint: 'http://producer/', tookMs };
}
