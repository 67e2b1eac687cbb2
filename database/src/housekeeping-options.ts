import { EscrowError, textOfError } from '@escrowmq/protocol';

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** What an hour of a busy service leaves behind is deleted in seconds. */
const EVERY_MS = 60 * MINUTE_MS;
/** More often only asks the same again. */
const EVERY_MS_MIN = MINUTE_MS;
/** Portions grow with the time between; a process rarely lives for many days. */
const EVERY_MS_MAX = DAY_MS;
/** Whoever keeps rows for longer keeps them for ever, and turns it off. */
const KEPT_MS_MAX = 3_650 * DAY_MS;

/** Milliseconds between two purges, as parsed. @throws {EscrowError} INVALID_CONFIGURATION */
export function parseEveryMs(everyMs: number = EVERY_MS): number {
  return parseMs('everyMs', everyMs, {
    min: EVERY_MS_MIN,
    max: EVERY_MS_MAX,
    why: 'more often finds nothing, and a process that purges once in days may not live that long',
  });
}

/**
 * Milliseconds for which rows are kept, as parsed.
 *
 * @param least the youngest that rows may be when they go, and why
 * @throws {EscrowError} INVALID_CONFIGURATION with that reason
 */
export function parseKeptMs(
  name: string,
  keptMs: number,
  {
    ms,
    why,
  }: {
    /** Milliseconds. */
    ms: number;
    /** For the error. */
    why: string;
  },
): number {
  return parseMs(name, keptMs, { min: ms, max: KEPT_MS_MAX, why });
}

function parseMs(
  name: string,
  value: number,
  { min, max, why }: { min: number; max: number; why: string },
): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `${name} is ${textOfError(value)}; it must be a whole number of ms from ${min} to ${max}: ${why}`,
  );
}
