import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { connect } from 'amqplib';

/** Takes away what subscriptions of a test have declared; what is not there does not matter. */
export async function deleteGroupQueues(
  rabbitmq: string,
  topic: string,
  groups: { group: string; retryDelaysMs: readonly number[] }[],
): Promise<void> {
  const connection = await connect(rabbitmq);
  const channel = await connection.createChannel();
  for (const { group, retryDelaysMs } of groups) {
    for (const delayMs of retryDelaysMs) {
      await channel.deleteQueue(retryQueueName(topic, group, delayMs));
    }
    await channel.deleteQueue(queueName(topic, group));
    await channel.deleteQueue(deadLetterQueueName(topic, group));
  }
  await channel.deleteExchange(topic);
  await connection.close();
}
