import { between, pick, type Random, randomOf, shuffled } from '../random.js';
import {
  DATABASE_SERVERS,
  type Fault,
  type FaultKind,
  LINK_NAMES,
  LINKS,
  type LinkName,
  PROCESSES,
} from './fault.js';

/*
 * The schedule is a pure function of the seed. It has no times in it: a fault comes when so many
 * transactions have been started, so that a slow machine gets as many faults per transaction as a
 * quick one, and none falls into an idle system.
 */

export const TRANSACTIONS_PER_FAULT = 50;

/**
 * Of each deck of faults, which is one run of 12,000: every kind ten times at least, and what costs
 * little often. A deck is shuffled whole, so that no luck leaves a kind out.
 */
const DECK: Record<Exclude<FaultKind, 'killServer'>, number> = {
  cut: 38,
  blackHole: 20,
  delay: 20,
  throttle: 16,
  cutAtCommit: 40,
  killProcess: 42,
  pauseProcess: 20,
  killConnections: 20,
  readOnly: 12,
};
/** A run of 12,000, so that it has every fault of the deck. */
const DECK_SIZE = 12_000 / TRANSACTIONS_PER_FAULT;
/** A database is back in 2 s, RabbitMQ in 5 to 8 s. */
const SERVER_KILLS = { store: 5, services: 5, rabbitmq: 2 } as const;
const SERVER_KILLS_WITH_RESTARTS = { store: 10, services: 10, rabbitmq: 10 } as const;

/** Of which the checker's reach is judged: what one deck has of a kind, and no fewer than ten. */
export const FAULTS_PER_KIND_MIN = 10;

export interface SchedulePlan {
  seed: number;
  transactions: number;
  /** Kills each server ten times in 12,000 transactions. */
  restarts: boolean;
}

/** In the order in which they come: one every `TRANSACTIONS_PER_FAULT`. */
export function scheduleOf({ seed, transactions, restarts }: SchedulePlan): Fault[] {
  const random = randomOf(seed, 'schedule');
  const count = Math.floor(transactions / TRANSACTIONS_PER_FAULT);
  const faults: Fault[] = [];
  while (faults.length < count) faults.push(...shuffled(random, deck(random, restarts)));
  return faults.slice(0, count);
}

function deck(random: Random, restarts: boolean): Fault[] {
  const servers = restarts ? SERVER_KILLS_WITH_RESTARTS : SERVER_KILLS;
  const kills = Object.entries(servers).flatMap(([server, times]) =>
    Array<Fault>(times).fill({ kind: 'killServer', server: server as keyof typeof servers }),
  );
  const kinds = Object.entries(DECK).flatMap(([kind, times]) =>
    Array<keyof typeof DECK>(times).fill(kind as keyof typeof DECK),
  );
  // The cuts stand first, and are what there is most of: more kills take their places.
  const others = kinds.slice(kinds.length + kills.length - DECK_SIZE);
  return [...others.map((kind) => faultOf(random, kind)), ...kills];
}

/**
 * Links whose bytes have a moment that matters more than others. Every second time it is a
 * producer's COMMIT, behind which nobody can look.
 */
const PRODUCER_COMMITS: LinkName[] = ['producer-1>database', 'producer-2>database'];
const OTHER_MOMENTS = LINK_NAMES.filter(
  (name) =>
    ['toDatabase', 'toStore', 'toBroker'].includes(LINKS[name]) && !PRODUCER_COMMITS.includes(name),
);

function faultOf(random: Random, kind: keyof typeof DECK): Fault {
  const link = () => pick(random, LINK_NAMES);
  switch (kind) {
    case 'cut':
      return { kind, link: link() };
    case 'blackHole':
      return { kind, link: link(), ms: between(random, 500, 3_000) };
    case 'delay':
      return {
        kind,
        link: link(),
        ms: between(random, 1_000, 3_000),
        eachMs: between(random, 5, 200),
      };
    case 'throttle':
      return {
        kind,
        link: link(),
        ms: between(random, 1_000, 3_000),
        bytesPerSecond: between(random, 5_000, 100_000),
      };
    case 'cutAtCommit':
      return {
        kind,
        link: pick(random, random() < 0.5 ? PRODUCER_COMMITS : OTHER_MOMENTS),
        when: pick(random, ['before', 'after'] as const),
        cuts: between(random, 1, 4),
        ms: 1_000,
      };
    case 'killProcess':
      return { kind, process: pick(random, PROCESSES), ms: between(random, 0, 1_000) };
    case 'pauseProcess':
      return { kind, process: pick(random, PROCESSES), ms: between(random, 1_500, 4_500) };
    case 'killConnections':
      return { kind, server: pick(random, DATABASE_SERVERS) };
    case 'readOnly':
      return { kind, server: pick(random, DATABASE_SERVERS), ms: between(random, 300, 1_500) };
  }
}
