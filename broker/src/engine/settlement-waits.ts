import { type BusinessKeyAnswer, EscrowError, maySettle } from '@escrowmq/protocol';
import type { Unsettled } from '../domain/group-standing.js';
import type { Observer, Store } from '../domain/ports.js';

/**
 * Answers when a transaction, or everything on a business key, has settled, wherever that happens:
 * while somebody waits, the store is asked about all that is awaited in one query per tick. What can
 * not settle by itself any more is not waited for.
 */
export interface SettlementWaits {
  /** Resolves with what has not settled, at once where `waitMs` is 0. */
  forBusinessKey(
    request: Waiting & {
      businessKey: string;
      /** Only transactions of this group. */
      producerGroup: string | undefined;
    },
  ): Promise<BusinessKeyAnswer>;
  forTransaction(request: Waiting & { id: string }): Promise<void>;
}

interface Waiting {
  waitMs: number;
  /** Ends the wait early. */
  signal: AbortSignal;
}

export interface SettlementWaitsDeps {
  store: Pick<Store, 'unsettled' | 'unsettledOn'>;
  observer: Pick<Observer, 'failed'>;
}

/** How much later than it happened a wait ends; one query for all waits costs about a millisecond. */
const TICK_MS = 25;
/** Each holds a connection; more than this is a mistake or an attack. */
const WAITS_MAX = 2_000;
const KEYS_PER_QUERY_MAX = 500;

/** What may be asked about many keys at once. */
interface Question {
  /** The same for what the same query can answer. */
  name: string;
  ask(keys: readonly string[]): Promise<Map<string, Unsettled[]>>;
}

interface Wait {
  question: Question;
  key: string;
  found(unsettled: Unsettled[]): void;
}

export function createSettlementWaits({ store, observer }: SettlementWaitsDeps): SettlementWaits {
  const waits = new Set<Wait>();
  let ticking = false;

  const aboutTransactions: Question = {
    name: 'transactions',
    async ask(ids) {
      const unsettled = await store.unsettled(ids);
      return new Map([...unsettled].map(([id, transaction]) => [id, [transaction]]));
    },
  };
  const aboutBusinessKeys = (producerGroup: string | undefined): Question => ({
    name: `business keys of ${producerGroup ?? ''}`,
    ask: (keys) => store.unsettledOn(keys, producerGroup),
  });

  async function askAbout({ ask }: Question, all: readonly Wait[]): Promise<void> {
    for (let from = 0; from < all.length; from += KEYS_PER_QUERY_MAX) {
      const part = all.slice(from, from + KEYS_PER_QUERY_MAX);
      const unsettled = await ask([...new Set(part.map(({ key }) => key))]);
      for (const wait of part) wait.found(unsettled.get(wait.key) ?? []);
    }
  }

  async function tick(): Promise<void> {
    const byQuestion = new Map<string, { question: Question; all: Wait[] }>();
    for (const wait of waits) {
      const { question } = wait;
      const asked = byQuestion.get(question.name);
      if (asked === undefined) byQuestion.set(question.name, { question, all: [wait] });
      else asked.all.push(wait);
    }
    try {
      for (const { question, all } of byQuestion.values()) await askAbout(question, all);
    } catch (error) {
      observer.failed('look for what has settled', error);
    }
    if (waits.size > 0) setTimeout(() => void tick(), TICK_MS);
    else ticking = false;
  }

  /** Resolves with what has not settled in the end. */
  async function wait(
    question: Question,
    key: string,
    { waitMs, signal }: Waiting,
  ): Promise<Unsettled[]> {
    let latest = (await question.ask([key])).get(key) ?? [];
    if (!latest.some(maySettle) || waitMs === 0 || signal.aborted) return latest;
    if (waits.size >= WAITS_MAX) {
      throw new EscrowError(
        'BROKER_BUSY',
        `${WAITS_MAX} callers wait for something to settle already`,
      );
    }
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(limit);
        signal.removeEventListener('abort', end);
        waits.delete(wait);
        resolve();
      };
      const wait: Wait = {
        question,
        key,
        found(unsettled) {
          latest = unsettled;
          if (!unsettled.some(maySettle)) end();
        },
      };
      const limit = setTimeout(end, waitMs);
      signal.addEventListener('abort', end);
      waits.add(wait);
      if (!ticking) {
        ticking = true;
        setTimeout(() => void tick(), TICK_MS);
      }
    });
    return latest;
  }

  return {
    async forBusinessKey({ businessKey, producerGroup, ...waiting }) {
      const transactions = await wait(aboutBusinessKeys(producerGroup), businessKey, waiting);
      return { businessKey, settled: transactions.length === 0, transactions };
    },
    async forTransaction({ id, ...waiting }) {
      await wait(aboutTransactions, id, waiting);
    },
  };
}
