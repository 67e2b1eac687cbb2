import { once } from 'node:events';
import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { type ConfirmChannel, connect } from 'amqplib';
import type { Outgoing } from '../../broker/src/domain/outgoing.js';

/** Keeps what the broker would tell people. */
export function recordingObserver() {
  const told: string[] = [];
  return {
    /** What happened, with the error's message, in order. */
    told,
    failed(what: string, error: unknown) {
      told.push(`${what}: ${error instanceof Error ? `${error.message} ${error.stack}` : error}`);
    },
    info(what: string, facts: Record<string, unknown> = {}) {
      told.push(`${what} ${JSON.stringify(facts)}`);
    },
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

/** A wire to RabbitMQ that can go silent: what the server says is held back until `resume`. */
export async function openWire(url: string) {
  const target = new URL(url);
  const sockets = new Set<Socket>();
  let silent = false;
  const server = createServer((client) => {
    const upstream = connectSocket(Number(target.port), target.hostname);
    sockets.add(client).add(upstream);
    client.pipe(upstream);
    upstream.on('data', (bytes) => {
      if (silent) held.push(() => client.write(bytes));
      else client.write(bytes);
    });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      socket.on('error', () => other.destroy());
      socket.on('close', () => other.destroy());
    }
  });
  let held: (() => void)[] = [];
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the wire has no port');
  const through = new URL(url);
  through.host = `127.0.0.1:${address.port}`;
  return {
    url: through.href,
    silence() {
      silent = true;
    },
    resume() {
      silent = false;
      for (const write of held) write();
      held = [];
    },
    /** Every connection is reset; new ones are taken. */
    breakAll() {
      for (const socket of sockets) socket.destroy();
      sockets.clear();
      held = [];
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
