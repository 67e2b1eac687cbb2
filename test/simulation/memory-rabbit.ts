import type { Outgoing } from '../../broker/src/domain/outgoing.js';
import type { Publisher, PublishOutcome, RabbitStatus } from '../../broker/src/domain/ports.js';
import type { Faults } from './faults.js';
import type { Process, Scheduler } from './scheduler.js';

/**
 * RabbitMQ with one exchange and one queue: what arrived is there for good until it is acknowledged,
 * and comes again when it was not. Confirms get lost, messages are returned while nobody is bound, and
 * a broker's connection may be cut under its unconfirmed messages.
 */
export interface Delivery {
  messageId: string;
  body: string;
}

/** The publisher's own limit for a confirm. */
const CONFIRM_MS_MAX = 10_000;
const WINDOW = 100;
const RECONNECT_MS_MAX = 8_000;

export interface RabbitOptions {
  scheduler: Scheduler;
  faults: Faults;
  server: Process;
  /** Told of each message as it arrives, before anybody can consume it. */
  onArrival(message: Outgoing): void;
  /** Told when one broker has the same message in flight twice. */
  onTwiceInFlight(broker: Process, messageId: string): void;
  /** Plants a mistake: a message counts as confirmed when it was sent. */
  confirmsAtOnce: boolean;
}

export class MemoryRabbit {
  /** Not acknowledged yet. */
  readonly queue = new Set<Delivery>();
  /** Gives a message to the consumer; it comes again unless it is acknowledged. */
  deliver: (message: Delivery) => void = () => {};
  readonly #options: RabbitOptions;

  constructor(options: RabbitOptions) {
    this.#options = options;
  }

  acknowledge(message: Delivery): void {
    this.queue.delete(message);
  }

  /** One broker's connection. */
  connect(broker: Process): Publisher & { onReady: (() => void) | undefined } {
    const { scheduler, faults } = this.#options;
    const inFlight = new Map<string, (outcome: PublishOutcome) => void>();
    let status: RabbitStatus = 'connected';

    function cut(): void {
      status = 'disconnected';
      const unconfirmed = [...inFlight.values()];
      scheduler.park(broker, 'its RabbitMQ connection is cut', () => {
        for (const end of unconfirmed) end({ kind: 'unconfirmed', detail: 'connection closed' });
      });
      const run = () => {
        status = 'connected';
        connection.onReady?.();
      };
      const delayMs = scheduler.random.below(RECONNECT_MS_MAX);
      scheduler.after(broker, delayMs, { name: 'RabbitMQ is connected again', run });
    }

    const send = (message: Outgoing): Promise<PublishOutcome> =>
      new Promise((resolve) => {
        const { messageId } = message;
        if (inFlight.has(messageId)) this.#options.onTwiceInFlight(broker, messageId);
        const run = () =>
          end({ kind: 'unconfirmed', detail: `no confirm in ${CONFIRM_MS_MAX} ms` });
        const limit = scheduler.after(broker, CONFIRM_MS_MAX, { name: 'confirm is late', run });
        function end(outcome: PublishOutcome): void {
          if (inFlight.get(messageId) === end) inFlight.delete(messageId);
          scheduler.cancel(limit);
          resolve(outcome);
        }
        inFlight.set(messageId, end);
        if (this.#options.confirmsAtOnce) end({ kind: 'confirmed' });
        this.#send(broker, message, end);
        if (faults.strike('a RabbitMQ connection is cut')) cut();
      });

    const connection: ReturnType<MemoryRabbit['connect']> = {
      publish: send,
      get room() {
        return status === 'connected' ? WINDOW - inFlight.size : 0;
      },
      get status() {
        return status;
      },
      onReady: undefined,
    };
    return connection;
  }

  #send(broker: Process, message: Outgoing, end: (outcome: PublishOutcome) => void): void {
    const { scheduler, faults, server } = this.#options;
    const { messageId } = message;
    if (faults.strike('a published message is lost')) return;
    scheduler.park(server, `RabbitMQ gets ${messageId}`, () => {
      const outcome = this.#take(message);
      if (faults.strike('a confirm is lost')) return;
      scheduler.park(broker, `${messageId} ${outcome.kind}`, () => end(outcome));
    });
  }

  #take(message: Outgoing): PublishOutcome {
    const { faults, onArrival } = this.#options;
    onArrival(message);
    if (faults.strike('nobody is bound')) return { kind: 'returned', detail: 'NO_ROUTE' };
    if (faults.strike('RabbitMQ nacks')) return { kind: 'nacked', detail: 'nack' };
    const delivery = { messageId: message.messageId, body: message.body.toString() };
    this.queue.add(delivery);
    this.deliver(delivery);
    return { kind: 'confirmed' };
  }
}
