import type { Observer, ProducerGroup } from '../domain/ports.js';
import type { BreakerLimits } from './breaker.js';
import { BREAKER_LIMITS } from './breaker.js';
import type { CallbackPolicy } from './callback-policy.js';
import type { BreakerChange, Slot } from './endpoint-slots.js';
import { EndpointSlots } from './endpoint-slots.js';
import { createGuardedAgent, type Resolve } from './guarded-agent.js';
import {
  type CallResult,
  callEndpoint,
  describeFailure,
  noAnswer,
  type Question,
} from './signed-call.js';

/*
 * Calls producers. One `call` is at most one request to one endpoint of the group; after one that
 * got no answer, the next turns to the next endpoint. Each endpoint has a limit of requests at a
 * time and a breaker of its own, so that a dead or slow one takes nothing from other groups. A `call`
 * that finds every slot taken waits for one, for as long as an answer may take, in the order of
 * arrival.
 *
 * It guarantees an end: after twice the group's `timeoutMs` there is an outcome. It does not retry
 * and keeps nothing durable; a crash forgets the breakers, and what was asked is asked again.
 */

/** Groups remembered while nothing of them is under way; the one unused longest is forgotten. */
const GROUPS_REMEMBERED_MAX = 1_000;

/** Calls of one group that may wait for a slot: 30 s of a slow endpoint with 8 slots. */
const WAITING_PER_GROUP_MAX = 256;

/** What is called, and for what. */
export interface CallKind {
  /** As it stands in messages: `check`. */
  name: string;
  urlsOf(group: ProducerGroup): readonly string[];
  /** Limit for one answer. */
  answerBytesMax: number;
}

export interface CallerOptions {
  /** Which URLs may be called. */
  allow: CallbackPolicy;
  observer: Pick<Observer, 'info' | 'failed'>;
  /** Monotonic milliseconds. @default performance.now */
  now?: () => number;
  /**
   * UTC milliseconds of the store's clock: the time that is signed. Receivers refuse one that is
   * more than five minutes off their own clock, and this machine's may be, unnoticed.
   */
  storeNow: () => number;
  /** Resolves host names. @default the system's resolver */
  resolve?: Resolve;
  /** @default 5 failures open it for 5 s, doubling to 60 s */
  breaker?: BreakerLimits;
}

interface Waiter {
  /** The slot, or why there is none. */
  done(result: Slot | string): void;
}

interface Group {
  slots: EndpointSlots;
  waiting: Set<Waiter>;
}

export type CallOutcome<Answer> =
  | { kind: 'answered'; answer: Answer; endpoint: string; tookMs: number }
  /** Without an endpoint none was called. */
  | { kind: 'unanswered'; endpoint?: string; tookMs: number; detail: string };

export interface ProducerCalls {
  /** Never rejects. */
  call<Answer>(group: ProducerGroup, question: Question<Answer>): Promise<CallOutcome<Answer>>;
  /** Calls to the group that would begin at once; without limit where none would be made. */
  roomFor(group: ProducerGroup): number;
  /** Groups whose endpoints take no further call now. */
  busyGroups(): string[];
  close(): Promise<void>;
}

/** @example createProducerCalls({ name: 'check', urlsOf: (group) => group.checkUrls, answerBytesMax }, options) */
export function createProducerCalls(kind: CallKind, options: CallerOptions): ProducerCalls {
  const { allow, observer } = options;
  const now = options.now ?? (() => performance.now());
  const limits = options.breaker ?? BREAKER_LIMITS;
  const { answerBytesMax } = kind;
  const agent = createGuardedAgent(allow, options.resolve);
  const groups = new Map<string, Group>();
  const calls = new Set<AbortController>();
  let closed = false;

  /** The group's state, now the most recently used one. */
  function groupOf(producerGroup: ProducerGroup): Group {
    const { name, checkPolicy } = producerGroup;
    const known = groups.get(name);
    const group = known ?? { slots: new EndpointSlots(limits, kind.name), waiting: new Set() };
    group.slots.configure(kind.urlsOf(producerGroup), checkPolicy.concurrencyMax);
    groups.delete(name);
    groups.set(name, group);
    if (groups.size > GROUPS_REMEMBERED_MAX) forgetOneIdle(name);
    return group;
  }

  function forgetOneIdle(except: string): void {
    for (const [name, { slots, waiting }] of groups) {
      if (name === except || waiting.size > 0 || !slots.idle) continue;
      groups.delete(name);
      return;
    }
  }

  const roomIn = ({ slots, waiting }: Group) => Math.max(0, slots.room(now()) - waiting.size);

  /** A slot, or why there is none. */
  async function takeSlot(group: Group, waitMsMax: number): Promise<Slot | string> {
    if (group.waiting.size === 0) {
      const choice = group.slots.choose(now());
      if (choice.kind === 'slot') return choice.slot;
      if (choice.kind === 'none') return choice.detail;
    }
    if (group.waiting.size >= WAITING_PER_GROUP_MAX)
      return `too many ${kind.name}s wait for this group`;
    return new Promise((resolve) => {
      const waiter: Waiter = {
        done(result) {
          clearTimeout(timer);
          group.waiting.delete(waiter);
          resolve(result);
        },
      };
      const timer = setTimeout(() => waiter.done(`no free slot within ${waitMsMax} ms`), waitMsMax);
      group.waiting.add(waiter);
    });
  }

  function wakeWaiting(group: Group): void {
    for (const waiter of group.waiting) {
      const choice = group.slots.choose(now());
      if (choice.kind === 'busy') return;
      waiter.done(choice.kind === 'slot' ? choice.slot : choice.detail);
    }
  }

  /** One request within its time limit; every failure becomes a result. */
  async function request<Answer>(
    group: ProducerGroup,
    url: string,
    question: Question<Answer>,
  ): Promise<CallResult<Answer>> {
    const { timeoutMs } = group.checkPolicy;
    const refusal = allow.checkUrlProblem(url);
    if (refusal !== undefined) return noAnswer(`call not allowed: ${refusal}`);
    const controller = new AbortController();
    const timeUp = noAnswer(`timed out after ${timeoutMs} ms`);
    const timer = setTimeout(() => controller.abort(timeUp), timeoutMs);
    calls.add(controller);
    try {
      const { signingSecrets } = group;
      const { signal } = controller;
      const called = callEndpoint({
        url,
        question,
        signingSecrets,
        answerBytesMax,
        agent: agent.dispatcher,
        signal,
        at: new Date(options.storeNow()),
      });
      // Measured: undici heeds the signal only once it is connected. Alone, a resolver that hangs
      // or a host that drops packets would hold the slot for the 5 s that connecting may take.
      return await Promise.race([called, rejectOnAbort(signal)]);
    } catch (error) {
      // What the signal gave as its reason is the result; anything else is a failed call.
      if (controller.signal.aborted) return controller.signal.reason as CallResult<never>;
      const detail = describeFailure(error);
      if (detail !== undefined) return noAnswer(detail);
      // No failure of a network has no code: it is the broker's own, such as a damaged secret.
      observer.failed(`calling a ${kind.name} endpoint of ${group.name}`, error);
      return noAnswer('the broker could not make the call; its log says why');
    } finally {
      clearTimeout(timer);
      calls.delete(controller);
    }
  }

  function tell(group: string, change: BreakerChange, detail: string): void {
    const what = `${kind.name} endpoint ${change.opened ? 'stopped answering' : 'answers again'}`;
    observer.info(what, { producerGroup: group, endpoint: shown(change.url), detail });
  }

  async function call<Answer>(
    group: ProducerGroup,
    question: Question<Answer>,
  ): Promise<CallOutcome<Answer>> {
    if (closed) return { kind: 'unanswered', tookMs: 0, detail: 'the broker is shutting down' };
    const state = groupOf(group);
    const slot = await takeSlot(state, group.checkPolicy.timeoutMs);
    if (typeof slot === 'string') return { kind: 'unanswered', tookMs: 0, detail: slot };
    const startedAt = now();
    const result = await request(group, slot.url, question);
    const endedAt = now();
    const failure = result.kind === 'noAnswer' ? { failure: result.detail } : {};
    const change = state.slots.release(slot, { now: endedAt, ...failure });
    wakeWaiting(state);
    if (change !== undefined) tell(group.name, change, failure.failure ?? 'answered');
    const about = { endpoint: shown(slot.url), tookMs: Math.round(endedAt - startedAt) };
    return result.kind === 'answer'
      ? { kind: 'answered', answer: result.answer, ...about }
      : { kind: 'unanswered', detail: result.detail, ...about };
  }

  return {
    call,
    roomFor: (group) => roomIn(groupOf(group)),
    busyGroups() {
      const busy = [...groups].filter(([, group]) => roomIn(group) === 0);
      return busy.map(([name]) => name);
    },
    async close() {
      closed = true;
      const shuttingDown = noAnswer('the broker is shutting down');
      for (const { waiting } of groups.values()) {
        for (const waiter of waiting) waiter.done(shuttingDown.detail);
      }
      for (const controller of calls) controller.abort(shuttingDown);
      await agent.close();
    },
  };
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** The endpoint as people and the history see it: a query may hold a secret. */
function shown(url: string): string {
  if (!URL.canParse(url)) return 'an unreadable URL';
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}
