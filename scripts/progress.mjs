/*
 * What the set-up tells while it works: in a terminal one line that moves, elsewhere a line now and
 * then. Several steps may run at once, and one that is done soon is not mentioned.
 */

/** A step that is done sooner is not worth a line. */
const QUIET_MS = 2_000;

/** How often the line in a terminal moves, and how exactly others are told. */
const TICK_MS = 1_000;

/** Often enough to see that it goes on, and yet few lines in the log of a machine that builds. */
const PLAIN_LINE_MS = 10_000;

/**
 * @param {{ write(text: string): unknown, isTTY?: boolean, columns?: number }} stream
 * @param {() => number} now milliseconds
 */
export function createProgress(stream, now = () => performance.now()) {
  /** @type {Set<{ label: string, startedAt: number, toldAt: number | undefined }>} */
  const running = new Set();
  let timer;

  /** Tells how far the steps are; the timer calls it, and tests do. */
  function tick() {
    const late = [...running].filter(({ startedAt }) => now() - startedAt >= QUIET_MS);
    if (stream.isTTY) {
      if (late.length === 0) return;
      const line = late.map((step) => `${step.label} … ${seconds(step, 0)} s`).join(', ');
      // A line that wraps could not be written over.
      stream.write(`\r${line.slice(0, (stream.columns ?? 80) - 1)}\x1b[K`);
      for (const step of late) step.toldAt = now();
      return;
    }
    for (const step of late) {
      if (now() - (step.toldAt ?? Number.NEGATIVE_INFINITY) < PLAIN_LINE_MS) continue;
      const isFirst = step.toldAt === undefined;
      stream.write(isFirst ? `${step.label} …\n` : `${step.label} … ${seconds(step, 0)} s\n`);
      step.toldAt = now();
    }
  }

  /** A line that stays. */
  function say(line) {
    stream.write(stream.isTTY ? `\r${line}\x1b[K\n` : `${line}\n`);
  }

  /** @returns what to call when the step has ended, well or not */
  function begin(label) {
    const step = { label, startedAt: now(), toldAt: undefined };
    running.add(step);
    timer ??= setInterval(tick, TICK_MS);
    return () => {
      running.delete(step);
      if (running.size === 0) {
        clearInterval(timer);
        timer = undefined;
      }
      if (step.toldAt !== undefined) say(`${label}: ${seconds(step, 1)} s`);
    };
  }

  const seconds = ({ startedAt }, digits) => ((now() - startedAt) / 1000).toFixed(digits);

  return { begin, say, tick };
}
