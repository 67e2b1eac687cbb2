import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import {
  ANNOUNCEMENTS_EXCHANGE,
  type Announcement,
  announcementKey,
  announcementsQueueName,
  isEscrowError,
  readAnnouncement,
} from '@escrowmq/protocol';
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { causedBy } from '../cause.js';
import type { Log } from '../events.js';
import { OnceAMinute } from '../once-a-minute.js';
import { watchChannel } from '../rabbit/channel.js';
import { type KeptOpen, keepOpen } from '../rabbit/keep-open.js';
import { named } from '../rabbit/topology.js';
import type { Announced } from './announced.js';
import { Peers } from './peers.js';

/*
 * Says what this consumer subscribes to, and hears what the other instances of its groups say: at
 * the start and after every loss of the channel, each minute, and at the end. Who has just begun
 * asks, and whoever hears that says itself within a second; answers do not ask, or there would be no
 * end to it.
 *
 * Best effort, on a channel of its own: what is refused or lost here harms no subscription. It is a
 * channel of the connection that publishes, because in an alarm RabbitMQ stops reading from such
 * connections, and the other one has to go on acknowledging.
 */
export interface Announcer {
  /** @returns to be called when the subscription has ended */
  add(announced: Announced): () => void;
  close(): Promise<void>;
}

/** Small enough a cost for thousands of instances: one message each, to its own group. */
const EVERY_MS = 60_000;
/** The part of the interval by which it may be shorter, so that a fleet does not speak at once. */
const JITTER = 0.2;
/** Instances that begin together are answered together, and well within a second. */
const ANSWER_WITHIN_MS = 500;
/** Rights are given by people: asking more often only fills the log of RabbitMQ. */
const REFUSED_PAUSE_MS = 10 * 60_000;
/** Longer than one reconnect takes. */
const CHANNEL_TIMEOUT_MS = 10_000;
/** For an instance that hangs; what is older than a minute has been said again. */
const QUEUE_ARGUMENTS = {
  'x-max-length': 1_000,
  'x-overflow': 'drop-head',
  'x-message-ttl': EVERY_MS,
};

interface Speaker {
  announced: Announced;
  peers: Peers;
  answering: NodeJS.Timeout | undefined;
}

interface Open {
  channel: Channel;
  queue: string;
}

type Call = Pick<Announcement, 'asks' | 'ends'>;

/** @param everyMs for tests */
export function createAnnouncer(
  connection: KeptOpen<ChannelModel>,
  log: Log,
  everyMs = EVERY_MS,
): Announcer {
  const speakers = new Set<Speaker>();
  const ignored = new OnceAMinute();
  let isRefused = false;

  const kept = keepOpen<Open>({
    what: 'the channel of announcements',
    async open(signal) {
      if (isRefused) await pause(REFUSED_PAUSE_MS, undefined, { signal, ref: false });
      const model = await connection.get(CHANNEL_TIMEOUT_MS, signal);
      const channel = await model.createChannel();
      const watched = watchChannel(channel);
      try {
        const { queue, cancelled } = await listen(channel);
        const lost = Promise.race([watched.lost, cancelled]);
        return { value: { channel, queue }, lost, close: () => watched.close() };
      } catch (error) {
        if (isEscrowError(error)) refused(error);
        await watched.close();
        throw error;
      }
    },
    onOpen() {
      for (const speaker of speakers) void join(speaker);
    },
    // What closes the connection is told by the connection.
    onLost(cause) {
      if (isAccessRefused(cause)) refused(cause);
    },
    isFatal: () => false,
  });

  async function listen(channel: Channel) {
    const exchange = ANNOUNCEMENTS_EXCHANGE;
    const declaring = channel.assertExchange(exchange, 'topic', { durable: true });
    await named(`exchange ${exchange}`, declaring);
    // A new one each time: RabbitMQ may still hold the last one for a connection that is gone. And
    // not a name of RabbitMQ's, which rights on `escrow:` do not cover.
    const queue = announcementsQueueName(randomUUID());
    const options = { exclusive: true, autoDelete: true, durable: false };
    const asserting = channel.assertQueue(queue, { ...options, arguments: QUEUE_ARGUMENTS });
    await named(`queue ${queue}`, asserting);
    let cancel: (reason: unknown) => void = () => {};
    const cancelled = new Promise<unknown>((resolve) => {
      cancel = resolve;
    });
    const take = (message: ConsumeMessage | null) => {
      if (message === null) cancel(new Error('RabbitMQ cancelled the consumer of announcements'));
      else hear(message);
    };
    await named(`queue ${queue}`, channel.consume(queue, take, { noAck: true }));
    return { queue, cancelled };
  }

  /** Said once: the subscriptions do their work without. */
  function refused(cause: unknown): void {
    if (isRefused) return;
    isRefused = true;
    log({ event: 'announcementsRefused', ...causedBy(cause) });
  }

  async function join(speaker: Speaker): Promise<void> {
    const open = kept.current;
    if (open === undefined) return;
    const { topic, group } = speaker.announced;
    try {
      if (group !== undefined) {
        const key = announcementKey(topic, group);
        await open.channel.bindQueue(open.queue, ANNOUNCEMENTS_EXCHANGE, key);
      }
      if (speakers.has(speaker)) say(speaker, { asks: true });
    } catch {
      // It closes the channel, whose loss tells why.
    }
  }

  function say({ announced }: Speaker, call: Call): void {
    const { topic, group } = announced;
    const announcement: Announcement = { ...announced, ...call, at: Date.now() };
    const body = Buffer.from(JSON.stringify(announcement));
    const properties = { contentType: 'application/json', type: 'announcement' };
    try {
      const key = announcementKey(topic, group);
      kept.current?.channel.publish(ANNOUNCEMENTS_EXCHANGE, key, body, properties);
    } catch {
      // The channel was closed a moment ago: the next one begins with everything.
    }
  }

  function hear({ content, fields }: ConsumeMessage): void {
    const announcement = readAnnouncement(content, fields.routingKey);
    if (typeof announcement === 'string') {
      const count = ignored.count(performance.now());
      if (count !== undefined) log({ event: 'announcementIgnored', cause: announcement, count });
      return;
    }
    const { topic, group, instance, asks } = announcement;
    for (const speaker of speakers) {
      const { announced, peers } = speaker;
      if (announced.topic !== topic || announced.group !== group) continue;
      if (group === undefined || announced.instance === instance) continue;
      for (const event of peers.heard(announcement, performance.now())) log(event);
      if (asks === true) answer(speaker);
    }
  }

  function answer(speaker: Speaker): void {
    speaker.answering ??= setTimeout(() => {
      speaker.answering = undefined;
      say(speaker, {});
    }, Math.random() * ANSWER_WITHIN_MS).unref();
  }

  function eachMinute(): void {
    const now = performance.now();
    for (const speaker of speakers) {
      say(speaker, {});
      for (const event of speaker.peers.expire(now)) log(event);
    }
    timer = nextMinute();
  }
  const nextMinute = () => setTimeout(eachMinute, everyMs * (1 - JITTER * Math.random())).unref();
  let timer = nextMinute();

  function end(speaker: Speaker): void {
    clearTimeout(speaker.answering);
    if (speakers.delete(speaker)) say(speaker, { ends: true });
  }

  return {
    add(announced) {
      const peers = new Peers({ ...announced, at: 0 });
      const speaker: Speaker = { announced, peers, answering: undefined };
      speakers.add(speaker);
      void join(speaker);
      return () => end(speaker);
    },
    async close() {
      clearTimeout(timer);
      for (const speaker of speakers) end(speaker);
      await kept.close();
    },
  };
}

/** What closes a channel where a right is missing that no declaration asked for: to publish. */
function isAccessRefused(cause: unknown): boolean {
  return typeof cause === 'object' && cause !== null && 'code' in cause && cause.code === 403;
}
