import type { Outgoing } from '../domain/outgoing.js';
import type { InFlight, PublishingChannel } from './publish-window.js';

/** At 1 to 10 ms for a confirm the last of them is answered long before its time limit. */
const WAITING_MAX = 200;

export interface AloneLaneDeps {
  /** A channel of its own; undefined when the connection ends meanwhile. */
  open(): Promise<PublishingChannel | undefined>;
  /**
   * False when it need not be tried here any more: it has an outcome, or what is known by now has
   * given it one or sent it with the others.
   */
  stillWaits(entry: InFlight, message: Outgoing): boolean;
  /** Publishes, or settles the entry at once. */
  send(on: PublishingChannel | undefined, entry: InFlight, message: Outgoing): void;
}

/**
 * Publishes one message at a time, on a channel that nothing else uses: one that RabbitMQ refuses by
 * closing the channel takes nobody with it, and there is no question which one it was.
 */
export class AloneLane {
  readonly #deps: AloneLaneDeps;
  #waiting: { entry: InFlight; message: Outgoing }[] = [];
  #running = false;
  #channel: PublishingChannel | undefined;
  #current: InFlight | undefined;

  constructor(deps: AloneLaneDeps) {
    this.#deps = deps;
  }

  /** What is in flight here. */
  get current(): InFlight | undefined {
    return this.#current;
  }

  /** False when as many wait as will be answered in time. */
  add(entry: InFlight, message: Outgoing): boolean {
    if (this.#waiting.length >= WAITING_MAX) return false;
    this.#waiting.push({ entry, message });
    if (!this.#running) void this.#run();
    return true;
  }

  /** The channel has closed, or takes nothing more. */
  leave(channel: PublishingChannel): void {
    if (this.#channel === channel) this.#channel = undefined;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    this.#running = true;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const { entry, message } = next;
      if (!this.#deps.stillWaits(entry, message)) continue;
      this.#channel ??= await this.#deps.open();
      if (this.#deps.stillWaits(entry, message)) await this.#sendAlone(entry, message);
    }
    this.#running = false;
  }

  /** Resolves when it has its outcome. */
  async #sendAlone(entry: InFlight, message: Outgoing): Promise<void> {
    const settled = new Promise<void>((done) => {
      const { resolve } = entry;
      entry.resolve = (outcome) => {
        resolve(outcome);
        done();
      };
    });
    this.#current = entry;
    this.#deps.send(this.#channel, entry, message);
    await settled;
    this.#current = undefined;
  }
}
