import type { Announcement } from '@escrowmq/protocol';

/** What the instances of one group must say alike. */
export type AnnouncedSubject = 'routingKeys' | 'retryDelaysMs' | 'mode';

export interface Disagreement {
  about: AnnouncedSubject;
  /** For people. */
  mine: string;
  theirs: string;
}

/** What is said in the log of one value: a hundred keys of 255 bytes would hide all else. */
const VALUE_CHARS_MAX = 300;

/**
 * How two instances of one group differ. Routing keys count as a set; delays in their order, because
 * that is what they mean.
 */
export function disagreements(mine: Announcement, theirs: Announcement): Disagreement[] {
  const values = (of: Announcement): [AnnouncedSubject, string][] => [
    ['routingKeys', [...new Set(of.routingKeys)].sort().join(', ')],
    ['retryDelaysMs', of.retryDelaysMs.join(', ')],
    ['mode', of.partitions === undefined ? of.mode : `${of.mode} in ${of.partitions} partitions`],
  ];
  const others = values(theirs);
  return values(mine).flatMap(([about, value], index) => {
    const other = others[index]?.[1] ?? '';
    return value === other ? [] : [{ about, mine: value, theirs: other }];
  });
}

/** Cut for the log, after it was compared. */
export const shortened = (value: string): string =>
  value.length <= VALUE_CHARS_MAX ? value : `${value.slice(0, VALUE_CHARS_MAX)} …`;
