import { type CheckAnswer, type CheckRequest, EscrowError, LIMITS } from '@escrowmq/protocol';
import type { Asker, CheckOutcome, Overdue, ProducerGroup } from '../domain/ports.js';

/**
 * Checks for producers that can't be called: they poll, and this hands a check to a poll that waits
 * and waits for the answer, which comes with a later poll. To the checker it is asking like any
 * other, with the same end: an answer, or none within the policy's `timeoutMs`.
 *
 * A group without check URLs is a pull group. While nobody polls for it here, it has no room, so its
 * checks are left to the instance at which somebody does. A group with URLs whose client polls as
 * well is asked by polls while somebody polls, and else by calls.
 *
 * Nothing is silent: a pull group that has been quiet here for a while is asked all the same once
 * its checks are so long overdue that nobody can be polling anywhere. That is no answer, which puts
 * the check off and in the end raises the alert.
 *
 * Nothing here is durable. A crash, or a caller who hangs up before it has its checks: no answer
 * comes in time, nothing is spent, and the check is made again.
 */
export interface CheckPolls extends Asker {
  /**
   * Takes the answers, then waits for at least one check. Ends early, and empty, when the signal
   * aborts. Rejects with `PRODUCER_GROUP_NOT_FOUND`, `BROKER_BUSY` or `STORE_UNAVAILABLE`.
   */
  poll(request: Poll): Promise<CheckRequest[]>;
  /** Groups that nobody polls for here, by how long a check of theirs must be overdue. */
  unpolled(): Overdue[];
  /** Runs one pass of the checker. A poll that does not wait still sees one that began after it. */
  duringPass<T>(pass: () => Promise<T>): Promise<T>;
  /** Ends what is under way: every check that was handed out has its outcome, and polls end. */
  close(): void;
}

export interface Poll {
  producerGroup: string;
  waitMs: number;
  limit: number;
  answers: readonly CheckAnswer[];
  signal: AbortSignal;
}

export interface CheckPollsDeps {
  /** Asks by calling check endpoints. */
  calls: Asker;
  findGroup(name: string): Promise<ProducerGroup | undefined>;
  /** An answer to a check that is not under way here any more, or never was. */
  takeLate(producerGroup: string, answer: CheckAnswer): Promise<void>;
  /** Somebody polls: what is due may be claimed. */
  wake(): void;
  /** Monotonic milliseconds. @default performance.now */
  now?: () => number;
}

/** Stands in history and decisions where the URL of an endpoint would be. */
export const POLL_ENDPOINT = 'pull';

/**
 * A client answers and polls again within the longest `timeoutMs` (30 s); twice that without a poll,
 * and nobody polls. Sooner where the group wants its alert sooner.
 */
const QUIET_MS_MAX = 60_000;
/** Whoever has brought his answers polls again in far less. */
const QUIET_MS_MIN = 1_000;

/** Pull groups remembered while nobody polls; beyond, each is asked and gives no answer at once. */
const QUIET_GROUPS_MAX = 1_000;

/**
 * Checks of one group that are out for an answer, however many poll: the checker makes 256 at a
 * time, and a group that takes checks and answers none must not take them all.
 */
const UNDER_WAY_PER_GROUP_MAX = LIMITS.checksPerPollMax;

interface WaitingPoll {
  limit: number;
  checks: CheckRequest[];
  /** A pass of the checker began after it. */
  sawPass: boolean;
  /** Its time is over. */
  isOver: boolean;
  end(): void;
}

interface Group {
  polls: Set<WaitingPoll>;
  underWay: number;
  /** Has no check URL, as far as is known. */
  pullOnly: boolean;
  quietSince: number;
  /** After this long without a poll nobody polls. */
  quietMsMax: number;
}

interface UnderWay {
  producerGroup: string;
  done(outcome: CheckOutcome): void;
  askedAt: number;
}

const noAnswer = (detail: string, tookMs: number): CheckOutcome => ({
  kind: 'unanswered',
  endpoint: POLL_ENDPOINT,
  tookMs,
  detail,
});

export function createCheckPolls(deps: CheckPollsDeps): CheckPolls {
  const { calls } = deps;
  const now = deps.now ?? (() => performance.now());
  const groups = new Map<string, Group>();
  const underWay = new Map<string, UnderWay>();
  let closed = false;

  function groupNamed(name: string): Group {
    let group = groups.get(name);
    if (group === undefined) {
      const polls = new Set<WaitingPoll>();
      const quietSince = now();
      group = { polls, underWay: 0, pullOnly: false, quietSince, quietMsMax: QUIET_MS_MAX };
      groups.set(name, group);
    }
    return group;
  }

  /** Only what was learnt about a pull group is worth keeping. */
  function forgetIfIdle(name: string, { polls, underWay, pullOnly }: Group): void {
    if (polls.size === 0 && underWay === 0 && !pullOnly) groups.delete(name);
  }

  function roomOf(group: Group | undefined): number {
    if (group === undefined) return 0;
    let room = 0;
    for (const { limit, checks } of group.polls) room += limit - checks.length;
    return Math.min(room, UNDER_WAY_PER_GROUP_MAX - group.underWay);
  }

  const isQuiet = ({ polls, underWay, quietSince, quietMsMax }: Group): boolean =>
    polls.size === 0 && underWay === 0 && now() - quietSince >= quietMsMax;

  const pullGroups = () => [...groups].filter(([, { pullOnly }]) => pullOnly);

  /** Hands the check to the poll that waits longest and has room. */
  function askByPoll({ name, checkPolicy }: ProducerGroup, check: CheckRequest) {
    const group = groupNamed(name);
    const { timeoutMs } = checkPolicy;
    const askedAt = now();
    // Asked again, as an operator may have it: the earlier question has no answer.
    underWay.get(check.id)?.done(noAnswer('asked again before it was answered', 0));
    return new Promise<CheckOutcome>((resolve) => {
      const timer = setTimeout(
        () => done(noAnswer(`polled, and no answer came within ${timeoutMs} ms`, timeoutMs)),
        timeoutMs,
      );
      function done(outcome: CheckOutcome): void {
        clearTimeout(timer);
        underWay.delete(check.id);
        group.underWay -= 1;
        forgetIfIdle(name, group);
        resolve(outcome);
      }
      underWay.set(check.id, { producerGroup: name, done, askedAt });
      group.underWay += 1;
      for (const poll of group.polls) {
        if (poll.checks.length >= poll.limit) continue;
        poll.checks.push(check);
        // The checks of one pass come together; the poll takes them all along.
        if (poll.checks.length === 1) setImmediate(() => poll.end());
        return;
      }
    });
  }

  /** Rejects when the store did not take a late one; the caller brings all of them again. */
  async function takeAnswers(producerGroup: string, answers: readonly CheckAnswer[]) {
    const late: CheckAnswer[] = [];
    for (const answer of answers) {
      const waiting = underWay.get(answer.id);
      if (waiting?.producerGroup !== producerGroup) late.push(answer);
      else {
        const { decision, messageData } = answer;
        const tookMs = Math.round(now() - waiting.askedAt);
        waiting.done({
          kind: 'answered',
          decision,
          messageData,
          endpoint: POLL_ENDPOINT,
          tookMs,
        });
      }
    }
    const taken = await Promise.allSettled(late.map((one) => deps.takeLate(producerGroup, one)));
    for (const one of taken) if (one.status === 'rejected') throw one.reason;
  }

  function wait({ producerGroup, waitMs, limit, signal }: Poll): Promise<CheckRequest[]> {
    const group = groupNamed(producerGroup);
    if (group.polls.size >= LIMITS.pollsPerGroupMax) {
      throw new EscrowError(
        'BROKER_BUSY',
        `${LIMITS.pollsPerGroupMax} polls (pollsPerGroupMax) wait for checks of ${producerGroup} already`,
      );
    }
    return new Promise((resolve) => {
      const poll: WaitingPoll = {
        limit,
        checks: [],
        sawPass: false,
        isOver: false,
        end() {
          if (!group.polls.delete(poll)) return;
          clearTimeout(timer);
          signal.removeEventListener('abort', poll.end);
          group.quietSince = now();
          forgetIfIdle(producerGroup, group);
          resolve(poll.checks);
        },
      };
      const timer = setTimeout(() => {
        poll.isOver = true;
        if (poll.sawPass) poll.end();
      }, waitMs);
      signal.addEventListener('abort', poll.end);
      group.polls.add(poll);
      deps.wake();
    });
  }

  return {
    ask(group, request, trace) {
      if (closed) return Promise.resolve(noAnswer('the broker is shutting down', 0));
      if (roomOf(groups.get(group.name)) > 0) return askByPoll(group, request);
      if (group.checkUrls.length > 0) return calls.ask(group, request, trace);
      const detail = 'the producer group has no check URL, and nobody polls for its checks';
      return Promise.resolve(noAnswer(detail, 0));
    },
    roomFor(group) {
      const { name, checkUrls, checkPolicy } = group;
      const known = groups.get(name);
      const room = roomOf(known);
      if (checkUrls.length > 0) {
        if (known !== undefined) {
          known.pullOnly = false;
          forgetIfIdle(name, known);
        }
        return room + calls.roomFor(group);
      }
      if (known === undefined && groups.size >= QUIET_GROUPS_MAX) return Number.POSITIVE_INFINITY;
      const here = groupNamed(name);
      here.pullOnly = true;
      here.quietMsMax = Math.max(QUIET_MS_MIN, Math.min(QUIET_MS_MAX, checkPolicy.alertAfterMs));
      return room === 0 && isQuiet(here) ? Number.POSITIVE_INFINITY : room;
    },
    busyGroups() {
      const called = calls.busyGroups().filter((name) => roomOf(groups.get(name)) === 0);
      const pulled = pullGroups().filter(([, group]) => roomOf(group) === 0 && !isQuiet(group));
      return [...called, ...pulled.map(([name]) => name)];
    },
    unpolled() {
      const byMs = new Map<number, string[]>();
      for (const [name, group] of pullGroups()) {
        if (!isQuiet(group)) continue;
        const names = byMs.get(group.quietMsMax);
        if (names === undefined) byMs.set(group.quietMsMax, [name]);
        else names.push(name);
      }
      return [...byMs].map(([overdueMs, names]) => ({ groups: names, overdueMs }));
    },
    async poll(request) {
      const { producerGroup, answers, signal } = request;
      if ((await deps.findGroup(producerGroup)) === undefined) {
        throw new EscrowError(
          'PRODUCER_GROUP_NOT_FOUND',
          `producer group ${producerGroup} is not registered; PUT /v1/producer-groups/${producerGroup} does that`,
        );
      }
      await takeAnswers(producerGroup, answers);
      return closed || signal.aborted ? [] : wait(request);
    },
    async duringPass(pass) {
      const seeing = [...groups.values()].flatMap(({ polls }) => [...polls]);
      try {
        return await pass();
      } finally {
        for (const poll of seeing) {
          poll.sawPass = true;
          if (poll.isOver) poll.end();
        }
      }
    },
    close() {
      closed = true;
      for (const { done } of underWay.values()) done(noAnswer('the broker is shutting down', 0));
      for (const { polls } of groups.values()) for (const { end } of polls) end();
    },
  };
}
