import { EscrowError } from '@escrowmq/protocol';
import type { Observer, Store } from './domain/ports.js';

/** A probe gives up after a second or two; a store that needs longer serves nobody. */
const ANSWER_MS_MAX = 2_000;
/** Probes of this time share one write; with one each, whoever may ask would make the store work. */
const GOOD_FOR_MS = 1_000;

type ProvableStore = Pick<Store, 'proveWritable'>;

/**
 * Whether the store can be used: it is open, and has taken a write within the last second. One place
 * for the probes, the metrics and the log, so that they tell the same.
 */
export interface StoreStanding {
  /** What keeps it from being used, in words; undefined when nothing does. Answers within 2 s. */
  trouble(): Promise<string | undefined>;
  /** What is answered to whoever comes before the broker serves. */
  notYet(): EscrowError;
  /** It does not answer yet. */
  waitsFor(cause: unknown): void;
  opened(store: ProvableStore): void;
}

type Phase =
  | { phase: 'opening'; why: string }
  | { phase: 'open'; store: ProvableStore; goodUntil: number; failing: boolean };

export function createStoreStanding(
  observer: () => Pick<Observer, 'failed' | 'recovered'>,
): StoreStanding {
  let phase: Phase = { phase: 'opening', why: 'is being opened' };
  let proving: Promise<string | undefined> | undefined;

  /** A store that works again is seen by the first who asks; only what is good is kept. */
  async function prove(open: Extract<Phase, { phase: 'open' }>): Promise<string | undefined> {
    try {
      await open.store.proveWritable();
    } catch (error) {
      open.failing = true;
      observer().failed('writing to the store, to see whether it can be written', error);
      return messageOf(error);
    }
    open.goodUntil = performance.now() + GOOD_FOR_MS;
    if (open.failing) observer().recovered('STORE_UNAVAILABLE');
    open.failing = false;
    return undefined;
  }

  return {
    async trouble() {
      if (phase.phase === 'opening') return phase.why;
      if (performance.now() < phase.goodUntil) return undefined;
      proving ??= prove(phase).finally(() => {
        proving = undefined;
      });
      return within(ANSWER_MS_MAX, proving);
    },
    notYet() {
      const why = phase.phase === 'open' ? 'is being read' : phase.why;
      return new EscrowError('STORE_UNAVAILABLE', `the broker has no store yet: it ${why}`);
    },
    waitsFor(cause) {
      phase = { phase: 'opening', why: `is waited for: ${messageOf(cause)}` };
    },
    opened(store) {
      phase = { phase: 'open', store, goodUntil: 0, failing: false };
    },
  };
}

async function within(
  limitMs: number,
  answer: Promise<string | undefined>,
): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`does not answer within ${limitMs} ms`), limitMs);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
