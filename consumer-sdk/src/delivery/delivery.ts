import type { ConsumeMessage } from 'amqplib';
import type { Stop } from './stop.js';

/**
 * One message that is out with us. It is finished by exactly one of `ack`, `requeue` and `giveUp`,
 * called once; `close` waits for that.
 */
export interface Delivery {
  readonly original: ConsumeMessage;
  /**
   * Stopped when this delivery can not be settled any more: its channel is lost, or `close` has
   * stopped waiting. RabbitMQ delivers the message again.
   */
  readonly abandoned: Stop;
  /** Soon: with what else is settled in this turn of the event loop, see outstanding.ts. */
  ack(): void;
  /** Puts it back into its queue, at once. */
  requeue(): void;
  /** Leaves it to RabbitMQ, which delivers it again when the channel is closed, or has already. */
  giveUp(): void;
  /** Declares the queues again, in case one that we publish to was deleted. */
  repair(): Promise<void>;
}
