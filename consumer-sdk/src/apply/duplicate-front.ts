import { attempt, EscrowError, optionNames, refuseUnknown } from '@escrowmq/protocol';
import type { OnceMessage } from './apply-options.js';

/**
 * What is durable in the consumer's database for certain, remembered in this process: a repeat of it
 * is answered without asking. Nothing is remembered before COMMIT was answered, and nothing whose
 * outcome is unknown, so what the front says the table would say as well; what it does not know, the
 * table is asked about.
 *
 * Only a database that goes back in time makes it wrong: restart the consumers after one was
 * restored from a backup, or has lost what it had acknowledged.
 */
export interface DuplicateFront {
  /** Whether the database is known to have applied the message. */
  isApplied(database: object, message: OnceMessage): boolean;
  /** Told when COMMIT was answered: the message is applied. */
  noteApplied(database: object, message: OnceMessage): void;
  /** The latest known to be stored about an object; what is stored may be later. */
  newest(database: object, object: ObjectOfGroup): Stored | undefined;
  /** Told when COMMIT was answered: this is stored about the object. */
  noteNewest(database: object, object: ObjectOfGroup, stored: Stored): void;
}

/*
 * A front may be a user's own. One that fails knows nothing and is asked about nothing more: after COMMIT
 * its error would make a failure of work that is durable.
 */

export const isKnown = (
  front: DuplicateFront | undefined,
  database: object,
  message: OnceMessage,
): boolean => attempt(() => front?.isApplied(database, message) === true, false);

export const note = (
  front: DuplicateFront | undefined,
  database: object,
  message: OnceMessage,
): void => attempt(() => front?.noteApplied(database, message), undefined);

/** An object, as a consumer group's `latest` names it. */
export interface ObjectOfGroup {
  /** The consumer group. */
  group: string;
  /** The object's own key. */
  key: string;
}

/** What is stored about an object. */
export interface Stored {
  /** The business time, in ms or as the number of a version. */
  at: number;
  /** The message that brought it. */
  messageId: string;
}

/** Options of `createDuplicateFront`. */
export interface DuplicateFrontOptions {
  /** Number of messages, and likewise of objects, remembered for each database. @default 10000 */
  sizeMax?: number;
}

/** Ten seconds of a busy consumer, which is when most repeats come; about 2 MB. */
const SIZE_DEFAULT = 10_000;
/** About 200 MB; a Map holds sixteen times as many. */
const SIZE_MAX = 1_000_000;

const FRONT_OPTIONS = optionNames<DuplicateFrontOptions>({ sizeMax: true });

/**
 * Makes a front for `once` and `latest`, to be passed to every call of a process. It forgets what was
 * asked for longest ago. Messages applied in one database say nothing about another.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION when `sizeMax` is not from 1 to a million
 * @example
 * const front = createDuplicateFront();
 * await once(database, message, work, { front });
 */
export function createDuplicateFront(options: DuplicateFrontOptions = {}): DuplicateFront {
  refuseUnknown(options, FRONT_OPTIONS, 'createDuplicateFront');
  const { sizeMax = SIZE_DEFAULT } = options;
  if (!Number.isInteger(sizeMax) || sizeMax < 1 || sizeMax > SIZE_MAX) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `sizeMax must be a whole number from 1 to ${SIZE_MAX}, got ${sizeMax}`,
    );
  }
  const applied = new PerDatabase<true>(sizeMax);
  const objects = new PerDatabase<Stored>(sizeMax);
  return {
    isApplied: (database, message) => applied.of(database).get(messageKey(message)) === true,
    noteApplied: (database, message) => applied.of(database).set(messageKey(message), true),
    newest: (database, object) => objects.of(database).get(objectKey(object)),
    noteNewest(database, object, stored) {
      const known = objects.of(database);
      const key = objectKey(object);
      const before = known.get(key);
      // Answers to COMMIT may arrive in another order than the database gave them.
      if (before === undefined || before.at < stored.at) known.set(key, stored);
    },
  };
}

/** Names of groups have no space. */
const messageKey = ({ group, id }: OnceMessage) => `${group} ${id}`;
const objectKey = ({ group, key }: ObjectOfGroup) => `${group} ${key}`;

class PerDatabase<V> {
  readonly #sizeMax: number;
  readonly #found = new WeakMap<object, Recent<V>>();

  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax;
  }

  of(database: object): Recent<V> {
    const found = this.#found.get(database) ?? new Recent<V>(this.#sizeMax);
    this.#found.set(database, found);
    return found;
  }
}

/** Forgets what was used longest ago: a Map keeps the order in which keys were set. */
class Recent<V> {
  readonly #sizeMax: number;
  readonly #values = new Map<string, V>();

  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax;
  }

  get(key: string): V | undefined {
    const value = this.#values.get(key);
    if (value !== undefined) this.set(key, value);
    return value;
  }

  set(key: string, value: V): void {
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size <= this.#sizeMax) return;
    const [oldest] = this.#values.keys();
    if (oldest !== undefined) this.#values.delete(oldest);
  }
}
