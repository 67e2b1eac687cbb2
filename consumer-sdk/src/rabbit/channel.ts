import type { Channel } from 'amqplib';
import { closed } from './connection.js';

/** A channel whose end can be awaited. */
export interface WatchedChannel {
  /** Resolves with the reason when the channel is closed, by whomever; never rejects. */
  lost: Promise<unknown>;
  readonly isOpen: boolean;
  close(): Promise<void>;
}

/** To be called right after the channel was made: without listeners an error ends the process. */
export function watchChannel(channel: Channel): WatchedChannel {
  let failure: unknown;
  let isOpen = true;
  const lost = new Promise<unknown>((resolve) => {
    channel.on('error', (error) => {
      failure = error;
    });
    channel.on('close', () => {
      isOpen = false;
      resolve(failure ?? new Error('channel closed'));
    });
  });
  return {
    lost,
    get isOpen() {
      return isOpen;
    },
    async close() {
      if (!isOpen) return;
      // From now on amqplib throws at whoever acknowledges something.
      isOpen = false;
      await closed(channel.close(), lost);
    },
  };
}
