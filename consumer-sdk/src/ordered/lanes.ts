import type { Permit, Semaphore } from './semaphore.js';

/**
 * What is done for one message: called with a permit in hand, over when it resolves. Must not
 * reject.
 */
export type Work = (permit: Permit) => Promise<void>;

/**
 * One lane for each key that has work: the work of a key is done in the order in which it was
 * added, one piece at a time; that of different keys at the same time, as far as there are permits.
 * Work that lets go of its permit while it waits (`Permit.whileIn`) keeps its lane.
 *
 * Nothing is ever taken out of a lane but by doing it. Work that is of no use any more, because its
 * delivery was abandoned, finds that out by itself and is over at once: so whatever comes after a
 * lost channel stands behind what still runs from before it.
 */
export class Lanes {
  readonly #semaphore: Semaphore;
  readonly #lanes = new Map<string, Work[]>();

  constructor(semaphore: Semaphore) {
    this.#semaphore = semaphore;
  }

  add(key: string, work: Work): void {
    const lane = this.#lanes.get(key);
    if (lane === undefined) {
      const begun = [work];
      this.#lanes.set(key, begun);
      void this.#run(key, begun);
    } else lane.push(work);
  }

  /** Keys that have work. */
  get size(): number {
    return this.#lanes.size;
  }

  async #run(key: string, lane: Work[]): Promise<void> {
    for (let work = lane.shift(); work !== undefined; work = lane.shift()) {
      // Given back after each piece, so that a long lane does not keep others waiting.
      await this.#semaphore.hold(work);
    }
    // Nobody can have added to it since it was seen to be empty.
    this.#lanes.delete(key);
  }
}
