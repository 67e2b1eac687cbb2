/*
 * Which secrets sign the broker's calls to a service. Two at most: the one that is in force and, for a
 * while, the one before it, so that whoever verifies with either accepts the call. A change never takes
 * away at once what a running instance verifies with, whoever made it.
 */

export interface StoredSecrets {
  current: string;
  /** Still signs. */
  previous?: string | undefined;
}

export interface NextSecrets {
  current: string;
  previous: string;
  /** As long as it is stated beside the current one; else for a day. */
  previousStays: boolean;
}

/**
 * What a service's own secrets make of the stored ones; `undefined` when they are in force already.
 *
 * @param stated the one in force, and perhaps the one before it
 * @example
 * nextSecrets({ current: 'old' }, ['new', 'old']) // rotated; both sign until ['new'] is stated
 * nextSecrets({ current: 'theirs' }, ['mine'])    // replaced; theirs signs for another day
 */
export function nextSecrets(
  stored: StoredSecrets,
  [current, before]: readonly [string, string?],
): NextSecrets | undefined {
  if (stored.current === current) {
    // Another one still signs beside it for its day: a call that is repeated does not end that.
    if (before === undefined || stored.previous !== undefined) return undefined;
    return { current, previous: before, previousStays: true };
  }
  // Running instances may verify with what is in force, whether it was stated or not.
  return { current, previous: stored.current, previousStays: stored.current === before };
}

/** A request's own secrets, one or two. */
export function statedIn(request: {
  signingSecrets?: string[] | undefined;
}): readonly [string, string?] | undefined {
  const [current, before] = request.signingSecrets ?? [];
  if (current === undefined) return undefined;
  return before === undefined ? [current] : [current, before];
}
