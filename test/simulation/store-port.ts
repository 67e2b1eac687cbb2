import { EscrowError } from '@escrowmq/protocol';
import type { Faults } from './faults.js';
import type { MemoryStore, StorePort } from './memory-store.js';
import type { Process, Scheduler } from './scheduler.js';

/**
 * The store as one broker reaches it. A change is two steps: it happens at the database, and its answer
 * arrives. A broker may die between them or even before the first: what was sent happens. Or the answer
 * is an error, with or without the change.
 */
export interface StorePortOptions {
  scheduler: Scheduler;
  faults: Faults;
  /** The database's. */
  server: Process;
  broker: Process;
  store: MemoryStore;
}

const unavailable = () => new EscrowError('STORE_UNAVAILABLE', 'the store can not be reached');

export function storePort(options: StorePortOptions): StorePort {
  const { scheduler, faults, server, broker, store } = options;

  function change<Given extends unknown[], Result>(
    name: string,
    apply: (...given: Given) => Result,
  ): (...given: Given) => Promise<Result> {
    return (...given) =>
      new Promise((resolve, reject) => {
        const fail = () => reject(unavailable());
        if (faults.strike(`the store refuses ${name}`)) {
          scheduler.park(broker, `${name} fails`, fail);
          return;
        }
        scheduler.park(server, `${name} for ${broker.name}`, () => {
          const result = apply(...given);
          if (faults.strike(`the answer to ${name} is lost`)) {
            scheduler.park(broker, `${name} fails`, fail);
          } else scheduler.park(broker, `${name} answered`, () => resolve(result));
        });
      });
  }

  /** Nobody else can tell when a read happens between its call and its answer. */
  function read<Given extends unknown[], Result>(
    name: string,
    apply: (...given: Given) => Result,
  ): (...given: Given) => Promise<Result> {
    return (...given) =>
      new Promise((resolve) => scheduler.park(broker, name, () => resolve(apply(...given))));
  }

  /** One that finds nothing changes nothing, and is answered in its step: loops make many of those. */
  function claim<Given extends unknown[], Result extends { due: readonly unknown[] }>(
    name: string,
    apply: (...given: Given) => Result,
  ): (...given: Given) => Promise<Result> {
    return (...given) =>
      new Promise((resolve, reject) => {
        const fail = () => reject(unavailable());
        scheduler.park(broker, name, () => {
          const result = apply(...given);
          if (result.due.length === 0) resolve(result);
          else if (faults.strike(`the answer to ${name} is lost`)) {
            scheduler.park(broker, `${name} fails`, fail);
          } else scheduler.park(broker, `${name} answered`, () => resolve(result));
        });
      });
  }

  return {
    now: read('now', store.now),
    find: read('find', store.find),
    findGroup: read('findGroup', store.findGroup),
    insert: change('insert', store.insert),
    decide: change('decide', store.decide),
    claimDueChecks: claim('claimDueChecks', store.claimDueChecks),
    saveChecks: change('saveChecks', store.saveChecks),
    releaseChecks: change('releaseChecks', store.releaseChecks),
    claimDueForwards: claim('claimDueForwards', store.claimDueForwards),
    // Read without a lock: what it found may be old when it arrives.
    readCommitted: change('readCommitted', store.readCommitted),
    saveForwards: change('saveForwards', store.saveForwards),
    postponeForwards: change('postponeForwards', store.postponeForwards),
    releaseForwards: change('releaseForwards', store.releaseForwards),
    appendHistory: change('appendHistory', store.appendHistory),
  };
}
