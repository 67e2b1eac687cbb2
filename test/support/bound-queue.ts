import amqplib, { type ChannelModel, type ConsumeMessage } from 'amqplib';

/** A queue bound to topics, with everything that arrived in it. */
export interface BoundQueue {
  received: ConsumeMessage[];
  messageIds(): string[];
  close(): Promise<void>;
}

/** Any AMQP client, as a consumer without the SDK. */
export async function bindQueue(
  url: string,
  bindings: { topic: string; routingKey: string }[],
): Promise<BoundQueue> {
  const connection: ChannelModel = await amqplib.connect(url);
  connection.on('error', () => undefined);
  const channel = await connection.createChannel();
  const received: ConsumeMessage[] = [];
  const { queue } = await channel.assertQueue('', { exclusive: true });
  for (const { topic, routingKey } of bindings) {
    await channel.assertExchange(topic, 'topic', { durable: true });
    await channel.bindQueue(queue, topic, routingKey);
  }
  await channel.consume(queue, (message) => message && received.push(message), { noAck: true });
  return {
    received,
    messageIds: () => received.map((message) => String(message.properties.messageId)),
    async close() {
      await connection.close();
    },
  };
}
