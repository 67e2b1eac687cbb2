import { connect } from 'amqplib';

/** TCP and the AMQP handshake together. */
const CONNECT_TIMEOUT_MS = 5_000;

export interface Unbinding {
  topic: string;
  queue: string;
  routingKeys: readonly string[];
}

/**
 * Takes bindings away, over a connection of its own: rare, and no publisher is in its way. What is
 * not bound, or whose queue or topic is gone, counts as done. Rejects when RabbitMQ does not answer.
 */
export async function unbind(rabbitmq: string, unbinding: Unbinding): Promise<void> {
  const { topic, queue, routingKeys } = unbinding;
  const model = await connect(rabbitmq, {
    timeout: CONNECT_TIMEOUT_MS,
    clientProperties: { connection_name: 'escrowmq-broker (unbinding)' },
  });
  // Whatever ends the connection rejects what waits for an answer; without a listener it would end
  // the process as well.
  model.on('error', () => undefined);
  try {
    const channel = await model.createChannel();
    channel.on('error', () => undefined);
    for (const routingKey of routingKeys) await channel.unbindQueue(queue, topic, routingKey);
  } finally {
    await model.close().catch(() => undefined);
  }
}
