import { attempt, stackOfError, textOfError } from '@escrowmq/protocol';

/**
 * What the SDKs tell when nobody gave them a logger, or when the logger itself has failed: nothing that
 * goes wrong is silent. A line goes to stderr at once, with the stack of its error and of what caused it.
 * What repeats is bounded: of each kind there is one line in ten seconds, which says how many there were.
 */
export type StderrLog = (line: StderrLine) => void;

/** One line to be told. */
export interface StderrLine {
  /** How bad it is. */
  level: 'warn' | 'error';
  /** What the bound on repeats goes by. */
  kind: string;
  /** What is said, in a sentence. */
  text: string;
  /** What it is about, written behind the text. @default none */
  fields?: Record<string, unknown>;
  /** Whatever was thrown. @default nothing was */
  thrown?: {
    /** The error, with its stack and causes. */
    error: unknown;
  };
}

/** What the log itself needs: for tests. */
export interface StderrLogDeps {
  /** Writes one text. */
  write(level: StderrLine['level'], text: string): void;
  /** Monotonic milliseconds. */
  now(): number;
}

/** A failure that lasts is seen within a few of them, and fills no disk. */
const REPEAT_MS = 10_000;
/** Kinds that are kept apart; a service has a handful for each subscription. */
const KINDS_MAX = 1_000;

interface Repeats {
  /** Until then lines of this kind are held back. */
  until: number;
  held: number;
  last: StderrLine;
}

/**
 * Makes a log that writes to stderr, with a bound on what repeats.
 * @param who begins each line: `escrowmq consumer`
 */
export function createStderrLog(who: string, deps: StderrLogDeps = CONSOLE): StderrLog {
  const { write, now } = deps;
  const kinds = new Map<string, Repeats>();

  function say(line: StderrLine, held: number): void {
    const times = held > 1 ? ` (${held} times in ${REPEAT_MS / 1000} s)` : '';
    const { level, text, fields = {}, thrown } = line;
    const stack = thrown === undefined ? '' : `\n  ${indented(stackOfError(thrown.error))}`;
    write(level, `${who}: ${text}${times}${textOf(fields)}${stack}`);
  }

  /** At the end of an interval in which some were held back. */
  function sayHeld(kind: string, repeats: Repeats): void {
    const { held, last } = repeats;
    kinds.set(kind, { until: now() + REPEAT_MS, held: 0, last });
    say(last, held);
  }

  function forgetQuiet(): void {
    const at = now();
    for (const [kind, { until, held }] of kinds) if (held === 0 && until <= at) kinds.delete(kind);
  }

  return (line) => {
    if (kinds.size >= KINDS_MAX) forgetQuiet();
    const kind = kinds.size < KINDS_MAX || kinds.has(line.kind) ? line.kind : '';
    const repeats = kinds.get(kind);
    const at = now();
    if (repeats === undefined || (repeats.held === 0 && repeats.until <= at)) {
      kinds.set(kind, { until: at + REPEAT_MS, held: 0, last: line });
      say(line, 1);
      return;
    }
    repeats.held += 1;
    repeats.last = line;
    if (repeats.held > 1) return;
    // It keeps no process alive: what counts was said with the first one.
    setTimeout(() => sayHeld(kind, repeats), Math.ceil(repeats.until - at)).unref();
  };
}

const indented = (text: string) => text.replaceAll('\n', '\n  ');

function textOf(fields: Record<string, unknown>): string {
  const said = Object.entries(fields).filter(([, value]) => value !== undefined);
  if (said.length === 0) return '';
  return ` {${said.map(([name, value]) => `${name}: ${textOfError(value)}`).join(', ')}}`;
}

/** The console is the user's as well, and may have been replaced. */
const CONSOLE: StderrLogDeps = {
  write: (level, text) => attempt(() => console[level](text), undefined),
  now: () => performance.now(),
};
