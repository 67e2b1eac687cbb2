import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { type Channel, connect } from 'amqplib';
import { RETRY_DELAYS_MS } from '../index-writer.js';
import { INDEXES, type User } from '../indexes.js';
import { TOPIC } from '../registration.js';

/** A user whose index entry could not be written. */
export interface DeadLetter {
  group: string;
  user: User;
}

async function withChannel<T>(url: string, work: (channel: Channel) => Promise<T>): Promise<T> {
  const connection = await connect(url);
  // Without a listener a connection that is lost would end this process; the calls fail anyway.
  connection.on('error', () => {});
  try {
    return await work(await connection.createChannel());
  } finally {
    await connection.close();
  }
}

export async function countDeadLetters(url: string, group: string): Promise<number> {
  return withChannel(url, async (channel) => {
    const { messageCount } = await channel.checkQueue(deadLetterQueueName(TOPIC, group));
    return messageCount;
  });
}

/** Messages that wait for an index writer, in its queue or for another attempt. */
export async function countWaiting(url: string): Promise<number> {
  return withChannel(url, async (channel) => {
    let waiting = 0;
    for (const { group } of INDEXES) {
      const retries = RETRY_DELAYS_MS.map((delayMs) => retryQueueName(TOPIC, group, delayMs));
      for (const queue of [queueName(TOPIC, group), ...retries]) {
        waiting += (await channel.checkQueue(queue)).messageCount;
      }
    }
    return waiting;
  });
}

/** Reads every dead letter and leaves it where it is. */
export async function readDeadLetters(url: string): Promise<DeadLetter[]> {
  return withChannel(url, async (channel) => {
    const found: DeadLetter[] = [];
    for (const { group } of INDEXES) {
      for (;;) {
        const message = await channel.get(deadLetterQueueName(TOPIC, group));
        if (message === false) break;
        found.push({ group, user: JSON.parse(message.content.toString()) as User });
      }
    }
    // Nothing was acknowledged: closing the channel puts them back.
    await channel.close();
    return found;
  });
}
