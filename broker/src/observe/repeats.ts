import type { Facts, Log } from './log.js';

/*
 * What repeats while something is away is told in few lines, however often it happens: the first at
 * once, then one a minute with how often it happened since, and one when it is over with how long it
 * took. Without this an outage of 35 seconds wrote 5,900 lines, and the one that said why was lost
 * among them. Nothing is told less by the metrics, which count each.
 *
 * Reached through the Observer: `failed(what, error)` for what will be tried again, `warn(what, facts,
 * about)` for anything else that may repeat, `recovered(what)` where somebody knows the end.
 */

/** One line a minute tells an operator that it goes on, and is 60 an hour. */
const LINE_EVERY_MS = 60_000;

/** Beyond it causes share one entry, so that no flood of different names fills the log or the memory. */
const CAUSES_MAX = 500;

/** Enough of a text to tell one cause from another. */
const CAUSE_CHARS_MAX = 200;

export interface RepeatingLine {
  /** What ends together: all lines of a subject are over at once. */
  subject: string;
  /** What makes this another cause than others of the subject; ids and numbers do not. */
  detail: string;
  event: string;
  facts?: Facts;
  error?: unknown;
}

export interface Repeats {
  /** Writes the line at `warn`, or counts it when one of the same cause was written within a minute. */
  tell(line: RepeatingLine): void;
  /** Says once how long it took and how often it was, if anything of this subject was told. */
  over(subject: string): void;
}

interface Cause {
  /** The latest of its lines. */
  line: RepeatingLine;
  firstAt: number;
  latestAt: number;
  count: number;
  /** Since the last line. */
  untold: number;
  /** `overUntold`: it ended once more in a minute that has told of an end. */
  phase: 'going on' | 'overUntold' | 'overTold';
  /** Since the last line. */
  endTold: boolean;
}

const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/gi;

/** The text without what differs from one time to the next: ids and numbers. */
export const withoutIds = (text: string): string =>
  text.slice(0, CAUSE_CHARS_MAX).replace(UUID, '*').replace(/\d+/g, '*');

/** @param now monotonic milliseconds */
export function createRepeats(
  log: Pick<Log, 'warn' | 'info'>,
  now: () => number = () => performance.now(),
): Repeats {
  const causes = new Map<string, Cause>();

  function tell(line: RepeatingLine): void {
    const key = keyOf(line);
    const known = causes.get(key);
    if (known !== undefined) {
      again(known, line);
      return;
    }
    const at = now();
    causes.set(key, {
      line,
      firstAt: at,
      latestAt: at,
      count: 1,
      untold: 0,
      phase: 'going on',
      endTold: false,
    });
    log.warn(line.event, line.facts ?? {}, line.error);
    lookIn(key);
  }

  function keyOf({ subject, detail }: RepeatingLine): string {
    const key = JSON.stringify([subject, detail]);
    return causes.has(key) || causes.size < CAUSES_MAX ? key : 'others';
  }

  function again(cause: Cause, line: RepeatingLine): void {
    cause.line = line;
    cause.latestAt = now();
    cause.count += 1;
    cause.untold += 1;
    cause.phase = 'going on';
  }

  /** A minute after its last line a cause has its next one, or is forgotten. */
  function lookIn(key: string): void {
    setTimeout(() => {
      const cause = causes.get(key);
      if (cause === undefined) return;
      if (cause.untold === 0 || cause.phase === 'overTold') {
        // Nobody said that it ended, and for a minute it has not happened. Once is no outage.
        if (cause.phase === 'going on' && cause.count > 1) tellEnd([cause], cause.latestAt);
        causes.delete(key);
        return;
      }
      if (cause.phase === 'going on') {
        const { line, untold, firstAt } = cause;
        const facts = { ...line.facts, count: untold, tookMs: Math.round(now() - firstAt) };
        log.warn(line.event, facts, line.error);
      } else {
        tellEnd([cause], cause.latestAt);
        cause.phase = 'overTold';
      }
      cause.endTold = cause.phase === 'overTold';
      cause.untold = 0;
      lookIn(key);
    }, LINE_EVERY_MS).unref();
  }

  function over(subject: string): void {
    const ended = [...causes.values()].filter(
      ({ line, phase }) => line.subject === subject && phase === 'going on',
    );
    // What comes and goes says so once a minute.
    const flapping = ended.some(({ endTold }) => endTold);
    for (const cause of ended) {
      cause.phase = flapping ? 'overUntold' : 'overTold';
      cause.endTold = true;
    }
    if (!flapping) tellEnd(ended);
  }

  function tellEnd(ended: readonly Cause[], endedAt = now()): void {
    const [first] = ended;
    if (first === undefined) return;
    const count = ended.reduce((sum, cause) => sum + cause.count, 0);
    const firstAt = Math.min(...ended.map((cause) => cause.firstAt));
    log.info(`over: ${first.line.event}`, {
      count,
      tookMs: Math.round(endedAt - firstAt),
    });
  }

  return { tell, over };
}
