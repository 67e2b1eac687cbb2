import { INDEXES, type User } from '../indexes.js';
import type { Ledger } from './ledger.js';
import type { DeadLetter } from './queues.js';
import type { IndexEntry } from './read-shards.js';
import type { BrokerFigures } from './read-store.js';

/** Everything that was read when the processes had stopped. */
export interface Figures {
  users: User[];
  entries: IndexEntry[];
  deadLetters: DeadLetter[];
  broker: BrokerFigures;
  /** Messages that a consumer group got more than once. */
  repeated: number;
  /** Messages that no index writer has taken. */
  waiting: number;
  lookUps: { tried: number; found: number };
}

export interface Verdict {
  /** The table: what, and how many. */
  rows: [string, number][];
  /** Sentences; empty when everything agrees. */
  differences: string[];
}

/** Compares what was promised with what the databases say. */
export function judge(ledger: Ledger, figures: Figures): Verdict {
  const { users, entries, deadLetters, broker, lookUps } = figures;
  const missing = findMissing(ledger, figures);
  const phantoms = findPhantoms(users, entries);
  const registered = ledger.registered.length;
  const differences = [
    ...same('users rows', users.length, 'registered', registered),
    ...same('committed at the broker', broker.committed, 'registered', registered),
    ...same('forwarded', broker.forwarded, 'committed at the broker', broker.committed),
    ...same('rolled back at the broker', broker.rolledBack, 'provoked', ledger.rolledBack),
    ...same('dead letters', deadLetters.length, 'provoked', ledger.conflicts),
    ...same(
      'index rows',
      entries.length,
      '3 x registered - dead letters',
      INDEXES.length * registered - deadLetters.length,
    ),
    ...same('transactions left open', broker.unfinished, 'expected', 0),
    ...same('messages left in queues', figures.waiting, 'expected', 0),
    ...same('look-ups that found their user', lookUps.found, 'tried', lookUps.tried),
    ...atLeastOne('committed by a check', broker.committedByCheck),
    ...atLeastOne('rolled back by a check', broker.rolledBackByCheck),
    ...missing,
    ...phantoms,
  ];
  const rows: [string, number][] = [
    ['registered', registered],
    ['users rows', users.length],
    ['committed at the broker', broker.committed],
    ['rolled back', broker.rolledBack],
    ['decided by check: commit', broker.committedByCheck],
    ['decided by check: rollback', broker.rolledBackByCheck],
    ['forwarded', broker.forwarded],
    ['delivered more than once', figures.repeated],
    ['index rows', entries.length],
    ['dead letters', deadLetters.length],
    ['look-ups that found their user', lookUps.found],
    ['missing', missing.length],
    ['phantom', phantoms.length],
  ];
  return { rows, differences };
}

function same(what: string, actual: number, reference: string, expected: number): string[] {
  return actual === expected ? [] : [`${what}: ${actual}, ${reference}: ${expected}`];
}

function atLeastOne(what: string, actual: number): string[] {
  return actual > 0 ? [] : [`${what}: none, although some were provoked`];
}

/** Promised or committed users without their row or without an entry of theirs. */
function findMissing({ registered }: Ledger, { users, entries, deadLetters }: Figures): string[] {
  const rows = new Set(users.map(({ userId }) => userId));
  const owners = new Map(entries.map(({ group, value, userId }) => [key(group, value), userId]));
  const dead = new Set(deadLetters.map(({ group, user }) => key(group, user.userId)));
  const wanted = new Map([...registered, ...users].map((user) => [user.userId, user]));
  return [...wanted.values()].flatMap((user) => {
    const name = `lost: user ${user.userId}, phone ${user.phone},`;
    if (!rows.has(user.userId)) return [`${name} was registered and has no row`];
    const absent = INDEXES.filter(
      (index) =>
        owners.get(key(index.group, index.valueOf(user))) !== user.userId &&
        !dead.has(key(index.group, user.userId)),
    );
    if (absent.length === 0) return [];
    return [`${name} is not in ${absent.map(({ table }) => table).join(', ')}`];
  });
}

/** Entries that lead to no user, or to one who has another value. */
function findPhantoms(users: readonly User[], entries: readonly IndexEntry[]): string[] {
  const byId = new Map(users.map((user) => [user.userId, user]));
  return entries.flatMap(({ group, value, userId }) => {
    const user = byId.get(userId);
    const index = INDEXES.find((candidate) => candidate.group === group);
    if (user !== undefined && index?.valueOf(user) === value) return [];
    return [`phantom: ${group} says that ${value} is user ${userId}, who is not in the shards`];
  });
}

const key = (group: string, value: string | number) => `${group} ${value}`;
