import type { ChannelModel, ConfirmChannel, Options } from 'amqplib';
import { causedBy } from '../cause.js';
import type { Log } from '../events.js';
import { watchChannel } from './channel.js';
import { fittingHeaders } from './fitting-headers.js';
import { type KeptOpen, keepOpen } from './keep-open.js';

/**
 * Publishes to a queue by name and is done when RabbitMQ confirmed the message and did not return
 * it. Anything else is an error, also where the message may have arrived: the caller keeps the
 * original, and a repeat is what at-least-once allows.
 */
export interface Publisher {
  /** @throws Error when it is not certain that the message is in the queue */
  publish(queue: string, body: Buffer, properties: Options.Publish): Promise<void>;
  /** Declares a durable queue, once per channel, and again after it was found missing. */
  declare(queue: string, args: Record<string, string | number>): Promise<void>;
  close(): Promise<void>;
}

/** In an alarm RabbitMQ simply does not confirm; after this long the caller must decide anew. */
const CONFIRM_TIMEOUT_MS = 30_000;
/** Longer than one reconnect takes. */
const CHANNEL_TIMEOUT_MS = 10_000;

interface InFlight {
  queue: string;
  messageId: string | undefined;
  returned: boolean;
}

interface PublishChannel {
  channel: ConfirmChannel;
  inFlight: Set<InFlight>;
  declared: Set<string>;
}

export function createPublisher(connection: KeptOpen<ChannelModel>, log: Log): Publisher {
  const kept = keepOpen<PublishChannel>({
    what: 'the publishing channel',
    async open(signal) {
      const model = await connection.get(CHANNEL_TIMEOUT_MS, signal);
      const channel = await model.createConfirmChannel();
      const { lost, close } = watchChannel(channel);
      const inFlight = new Set<InFlight>();
      channel.on('return', (message) => {
        // A return names no delivery tag. Two copies of one message may be in flight; then both
        // count as returned, which repeats one of them and loses none.
        for (const publication of inFlight) {
          if (publication.messageId === message.properties.messageId) publication.returned = true;
        }
      });
      return { value: { channel, inFlight, declared: new Set() }, lost, close };
    },
    onLost: (cause, retryInMs) => log({ event: 'publishingLost', retryInMs, ...causedBy(cause) }),
    isFatal: () => false,
  });

  return {
    async publish(queue, body, properties) {
      const { channel, inFlight, declared } = await kept.get(CHANNEL_TIMEOUT_MS);
      const publication = { queue, messageId: properties.messageId, returned: false };
      inFlight.add(publication);
      try {
        await confirmed(channel, { queue, body, properties });
      } finally {
        inFlight.delete(publication);
      }
      // RabbitMQ returns first and confirms then, so the answer is complete by now.
      if (publication.returned) {
        declared.delete(queue);
        throw new Error(`RabbitMQ has no queue ${queue} and returned the message`);
      }
    },
    async declare(queue, args) {
      const { channel, declared } = await kept.get(CHANNEL_TIMEOUT_MS);
      if (declared.has(queue)) return;
      await channel.assertQueue(queue, { durable: true, arguments: args });
      declared.add(queue);
    },
    close: () => kept.close(),
  };
}

interface Publication {
  queue: string;
  body: Buffer;
  properties: Options.Publish;
}

function confirmed(channel: ConfirmChannel, publication: Publication): Promise<void> {
  const { queue, body, properties } = publication;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`RabbitMQ did not confirm within ${CONFIRM_TIMEOUT_MS} ms`));
    }, CONFIRM_TIMEOUT_MS);
    const settle = (error: unknown) => {
      clearTimeout(timer);
      if (error === null || error === undefined) resolve();
      else reject(isNack(error) ? notTaken(queue, error) : asError(error));
    };
    try {
      const headers = fittingHeaders(properties.headers ?? {}, frameMaxOf(channel));
      const options = { ...properties, headers, persistent: true, mandatory: true };
      channel.publish('', queue, body, options, settle);
    } catch (error) {
      // Thrown at once when the channel is closed.
      settle(error);
    }
  });
}

/** As agreed with RabbitMQ; without limit where the client library looks different inside. */
function frameMaxOf({ connection }: ConfirmChannel): number {
  const frameMax: unknown = 'frameMax' in connection ? connection.frameMax : undefined;
  return typeof frameMax === 'number' ? frameMax : Number.POSITIVE_INFINITY;
}

/** What the client library makes of a nack; it has no code. */
const isNack = (error: unknown) => error instanceof Error && error.message === 'message nacked';

/** Each publication goes to one queue, so a nack speaks of that one alone, and of nobody else's. */
const notTaken = (queue: string, cause: unknown) =>
  new Error(
    `RabbitMQ did not take the message into queue ${queue} (nack): it is full by a length limit, ` +
      'or has no leader',
    { cause },
  );

const asError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)));
