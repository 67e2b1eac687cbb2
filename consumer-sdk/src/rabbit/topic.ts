import { unlikeTopicIn } from '@escrowmq/protocol';
import type { Channel, ChannelModel } from 'amqplib';
import { ACCESS_REFUSED, codeOf, named } from './topology.js';

/**
 * Declares the topic, or takes it as it is: with an alternate exchange, or declared by somebody who
 * may while this user may only bind to it. On a channel of its own, which a refusal closes.
 * @throws EscrowError INVALID_CONFIGURATION when it is no durable topic exchange, or is missing and
 *   may not be declared
 */
export async function declareTopic(model: ChannelModel, topic: string): Promise<void> {
  try {
    await onItsOwnChannel(model, (channel) =>
      channel.assertExchange(topic, 'topic', { durable: true }),
    );
  } catch (refusal) {
    if (unlikeTopicIn(refusal) !== undefined) return;
    const isThere =
      codeOf(refusal) === ACCESS_REFUSED &&
      (await onItsOwnChannel(model, (channel) => channel.checkExchange(topic)).then(
        () => true,
        () => false,
      ));
    if (!isThere) await named(`exchange ${topic}`, Promise.reject(refusal));
  }
}

async function onItsOwnChannel(
  model: ChannelModel,
  work: (channel: Channel) => Promise<unknown>,
): Promise<void> {
  const channel = await model.createChannel();
  // A refusal rejects the work as well; without a listener Node would end the process.
  channel.on('error', () => undefined);
  try {
    await work(channel);
  } finally {
    // Rejects when the refusal has closed it already.
    await channel.close().catch(() => undefined);
  }
}
