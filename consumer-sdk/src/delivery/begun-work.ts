import { EscrowError, textOfError } from '@escrowmq/protocol';
import type { Log, WorkCall } from '../events.js';
import type { Stop } from './stop.js';

/**
 * What a handler has begun for its messages and must see to its end: `once`, `latest`, `onceBatch`. A
 * handler that ends before them has failed, whatever it returned: acknowledged now, the message would
 * be lost with the work, silently.
 *
 * The delivery is settled when handler and work have both ended, or when the handler's time is over.
 * Settling it at once would be as safe, because a repeat waits for the claim of the work and then is a
 * duplicate; but the repeats would pile up behind work that hangs, beyond `concurrency`, and in an
 * ordered group the next attempt would run beside this one. The work is not aborted: it may yet commit,
 * and whoever called it without waiting for it would make an unhandled rejection of its end.
 *
 * Work that failed, and whose promise nobody ever looked at, fails the handler too. That is how its
 * failure is told; it makes no unhandled rejection, which would end the process.
 */
export class BegunWork {
  readonly group: string;
  readonly #parts: BegunWorkParts;
  /** Open ones, and those that failed; made with the first. */
  #begun: Set<Begun> | undefined;
  #openCount = 0;
  #hasEnded = false;
  #whenNone: (() => void)[] = [];

  constructor(parts: BegunWorkParts) {
    this.group = parts.group;
    this.#parts = parts;
  }

  /** Of the handler's time limit, for work on a copy of a message that has lost its signal. */
  get signal(): AbortSignal {
    return this.#parts.stop.signal;
  }

  /** From the call of the handler on, work is found by its message: see `workOn`. */
  start(): void {
    for (const id of this.#parts.ids) {
      const others = RUNNING.get(id);
      if (others === undefined) RUNNING.set(id, [this]);
      else others.push(this);
    }
  }

  /** The delivery is settled: what is begun from now on, nobody waits for. */
  end(): void {
    this.#hasEnded = true;
    for (const id of this.#parts.ids) {
      const others = RUNNING.get(id)?.filter((other) => other !== this) ?? [];
      if (others.length === 0) RUNNING.delete(id);
      else RUNNING.set(id, others);
    }
  }

  follow<T>(call: WorkCall, work: Promise<T>): Promise<T> {
    if (this.#hasEnded) {
      this.#tellLate(call);
      return work;
    }
    this.#begun ??= new Set();
    this.#openCount += 1;
    const heard = new HeardPromise<T>((resolve, reject) => work.then(resolve, reject));
    const begun: Begun = { call, heard, failure: undefined };
    this.#begun.add(begun);
    work.then(
      () => {
        this.#begun?.delete(begun);
        this.#close();
      },
      (error: unknown) => {
        begun.failure = { error };
        this.#close();
      },
    );
    // Its failure is told as that of the handler.
    heard.ignoreRejection();
    return heard;
  }

  /** Once for each subscription: what was meant may be that there was nothing to do. */
  tellUnused(call: WorkCall): void {
    const { topic, group, ids, log } = this.#parts;
    const told = UNUSED_TOLD.get(log) ?? new Set<string>();
    UNUSED_TOLD.set(log, told);
    if (told.has(`${topic} ${group}`)) return;
    told.add(`${topic} ${group}`);
    log({ event: 'unusedTransaction', call, topic, group, messageId: ids[0] });
  }

  get isOpen(): boolean {
    return this.#openCount > 0;
  }

  /** Resolves when no work is open. */
  none(): Promise<void> {
    if (!this.isOpen) return Promise.resolve();
    return new Promise((resolve) => this.#whenNone.push(resolve));
  }

  /** Why a handler that ends now has failed; undefined when it has seen to all that it began. */
  problem(): EscrowError | undefined {
    const begun = [...(this.#begun ?? [])];
    const open = begun.find(({ failure }) => failure === undefined);
    if (open !== undefined) {
      return this.#misused(
        `ended while its ${open.call} was still under way: await it, or return its promise`,
      );
    }
    const unheard = begun.find(({ heard }) => !heard.wasHeard);
    if (unheard?.failure === undefined) return undefined;
    const { call, failure } = unheard;
    const said = textOfError(failure.error);
    return this.#misused(`never awaited its ${call}, which failed: ${said}`, failure.error);
  }

  #misused(what: string, cause?: unknown): EscrowError {
    const [first = '', ...more] = this.#parts.ids;
    const messages = more.length === 0 ? `message ${first}` : `${more.length + 1} messages`;
    return new EscrowError(
      'TRANSACTION_MISUSED',
      `the handler of ${messages} ${what}. So it has failed, and is not acknowledged`,
      cause === undefined ? {} : { cause },
    );
  }

  #tellLate(call: WorkCall): void {
    const { topic, group, ids, log } = this.#parts;
    log({ event: 'lateWork', call, topic, group, messageId: ids[0] });
  }

  #close(): void {
    this.#openCount -= 1;
    if (this.isOpen) return;
    for (const tell of this.#whenNone.splice(0)) tell();
  }
}

export interface BegunWorkParts {
  topic: string;
  group: string;
  /** Of the messages that the handler is called with. */
  ids: readonly string[];
  /** Of the handler's time limit. */
  stop: Stop;
  log: Log;
}

interface Begun {
  call: WorkCall;
  heard: HeardPromise<unknown>;
  failure: { error: unknown } | undefined;
}

/** A promise that knows whether somebody looked at how it ends. */
class HeardPromise<T> extends Promise<T> {
  wasHeard = false;

  /** What is made of it is an ordinary promise. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise, and `await` looks here
  override then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.wasHeard = true;
    return super.then(onFulfilled, onRejected);
  }

  ignoreRejection(): void {
    super.then(undefined, () => undefined);
  }
}

/**
 * Handlers that run in this process, by the ids of their messages: work may be given a copy of a
 * message, or no more than `{ id, group }`, which no other tie leads back from. Global, because a
 * process may mix both builds of this package.
 */
const RUNNING = sharedBySymbol<Map<string, BegunWork[]>>(
  '@escrowmq/consumer/running-handlers',
  () => new Map(),
);

function sharedBySymbol<T>(name: string, make: () => T): T {
  const shared = globalThis as { [key: symbol]: unknown };
  const key = Symbol.for(name);
  shared[key] ??= make();
  return shared[key] as T;
}

/** Subscriptions of a consumer, which has one log, that were told of a transaction without use. */
const UNUSED_TOLD = new WeakMap<Log, Set<string>>();

/** Of an ephemeral subscription, which has no group: any group may be named for its messages. */
export const NO_GROUP = '(ephemeral)';

/** The handler that runs for that message. */
export function workOn(id: string, group: string): BegunWork | undefined {
  const running = RUNNING.get(id);
  return (
    running?.findLast((work) => work.group === group) ??
    running?.findLast((work) => work.group === NO_GROUP)
  );
}
