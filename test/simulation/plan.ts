import type { ProducerGroup } from '../../broker/src/domain/ports.js';
import type { Random } from './random.js';
import { virtualNow } from './virtual-time.js';

/*
 * What a run is about, drawn by its seed: the transactions, and the group that they belong to.
 */
export const PRODUCER_GROUP = 'accounts';

export interface PlannedTransaction {
  id: string;
  topic: string;
  /** What each of its messages says. */
  data: string[];
  /** What the callback does after it wrote. */
  ending: 'return' | 'throw' | 'commitByMistake';
  /** The caller does not wait for the broker's answer to the commit. */
  commitInBackground: boolean;
}

/** Of the check policy: at once, so that checks meet open transactions, or later. */
const FIRST_CHECK_MS = [0, 0, 1_500, 10_000] as const;

export function plannedGroup(random: Random): ProducerGroup {
  const firstDelayMs = random.pick(FIRST_CHECK_MS);
  return {
    name: PRODUCER_GROUP,
    checkUrls: ['http://producer/'],
    compensationUrls: [],
    checkPolicy: {
      firstDelayMs,
      delayMsMax: 60_000,
      unknownMax: 100,
      timeoutMs: 3_000,
      concurrencyMax: 8,
      alertAfterMs: 3_600_000,
    },
    version: 0,
    signingSecrets: [],
  };
}

/** More make a run longer and nothing new: they meet in batches and in the order of their calls. */
const TRANSACTIONS_MAX = 3;
const MESSAGES_MAX = 2;
const ENDINGS = ['return', 'return', 'throw', 'commitByMistake'] as const;

export function plannedTransactions(random: Random): PlannedTransaction[] {
  const count = 1 + random.below(TRANSACTIONS_MAX);
  const isGood = random.chance(0.5);
  const time = virtualNow().toString(16).padStart(12, '0');
  return Array.from({ length: count }, (_, number) => {
    const id = `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${String(number + 1).padStart(12, '0')}`;
    const messages = 1 + random.below(MESSAGES_MAX);
    return {
      id,
      topic: 'user',
      data: Array.from({ length: messages }, (_none, place) => `said ${number + 1}.${place}`),
      ending: isGood ? 'return' : random.pick(ENDINGS),
      commitInBackground: random.chance(0.3),
    };
  });
}
