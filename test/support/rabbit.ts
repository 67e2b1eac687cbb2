import { type Channel, type ConfirmChannel, connect, type GetMessage } from 'amqplib';
import type { Outgoing } from '../../broker/src/domain/outgoing.js';
import { until } from './until.js';

/** Keeps what the broker would tell people. */
export function recordingObserver() {
  const told: string[] = [];
  return {
    /** What happened, with the error's message, in order. */
    told,
    alert({ kind, detail }: { kind: string; detail: string }) {
      told.push(`alert ${kind}: ${detail}`);
    },
    failed(what: string, error: unknown) {
      told.push(`${what}: ${error instanceof Error ? `${error.message} ${error.stack}` : error}`);
    },
    info(what: string, facts: Record<string, unknown> = {}) {
      told.push(`${what} ${JSON.stringify(facts)}`);
    },
    warn(what: string, facts: Record<string, unknown>) {
      told.push(`${what} ${JSON.stringify(facts)}`);
    },
    // The true one says nothing where nothing had failed, which is what tests see.
    recovered: () => undefined,
  };
}

/** A message as the engine would make it. */
export function outgoing(
  topic: string,
  messageId: string,
  changes: Partial<Outgoing> = {},
): Outgoing {
  return {
    topic,
    routingKey: 'registered',
    body: Buffer.from('{"userId":7}'),
    messageId,
    contentType: 'application/json',
    type: 'registered',
    producerGroup: 'accounts',
    timestampSeconds: 1_790_000_000,
    headers: { tenant: 'a' },
    ...changes,
  };
}

/** Runs `work` on a channel of its own, so that a test looks at RabbitMQ with other eyes. */
export async function onChannel<T>(
  url: string,
  work: (channel: ConfirmChannel) => Promise<T>,
): Promise<T> {
  const connection = await connect(url);
  // A channel that `work` breaks on purpose rejects the call as well.
  connection.on('error', () => undefined);
  try {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => undefined);
    return await work(channel);
  } finally {
    await connection.close();
  }
}

/** Takes the next message from a queue, waiting for it. */
export async function takeFrom(channel: Channel, queue: string): Promise<GetMessage> {
  let taken: GetMessage | false = false;
  await until(`there is a message in ${queue}`, async () => {
    taken = await channel.get(queue, { noAck: true });
    return taken !== false;
  });
  return taken as unknown as GetMessage;
}
