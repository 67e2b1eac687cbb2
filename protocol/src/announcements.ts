import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { ConsumerGroupName, printable, RoutingKey, Topic } from './names.js';

/*
 * What an instance says of its subscription, so that the group's other instances, and the brokers,
 * hear of it: best effort, and never more than somebody's word. Names of queues are derived from
 * topic and group and never taken from here; what does not fit is ignored, and nothing hangs on it.
 */

/**
 * A durable topic exchange. No topic has a colon in its name, so no producer can reach it. Whoever
 * comes first declares it.
 */
export const ANNOUNCEMENTS_EXCHANGE = 'escrow:announcements';

/**
 * The routing key of an announcement, and the binding key of those who hear it: an instance hears
 * its own group on its own topic and nobody else, a broker binds `#`. Names have dots and no
 * wildcards, so the whole is compared word for word; the colon keeps two pairs apart. Ephemeral
 * subscriptions have no group.
 */
export const announcementKey = (topic: string, group: string | undefined): string =>
  `${topic}:${group ?? ''}`;

/** Of one instance, and gone with its channel. */
export const announcementsQueueName = (instance: string): string =>
  `${ANNOUNCEMENTS_EXCHANGE}:${instance}`;

/** How a subscription consumes; a later version may know others. */
export type AnnouncedMode = 'each' | 'batch' | 'ordered' | 'ephemeral';

/**
 * Unknown fields are left out and not refused, so that later versions may say more. Every text and
 * every list has an end: it stands in logs.
 */
export interface Announcement {
  /** The topic that is subscribed to. */
  topic: string;
  /** The consumer group. @default none: ephemeral */
  group?: string | undefined;
  /** The keys that its queue is bound by, 1 to 100. */
  routingKeys: string[];
  /** One of `AnnouncedMode`; a later version may say another word. */
  mode: string;
  /** Number of partition queues, 1 to 32. @default none: it is not ordered */
  partitions?: number | undefined;
  /** The pauses before each further attempt, in milliseconds, at most 32. */
  retryDelaysMs: number[];
  /** Names of its queues, at most 66. */
  queues: string[];
  /** Name of the machine, at most 255 characters. */
  host: string;
  /** Tells this instance from every other: 1 to 64 letters, digits and dashes. */
  instance: string;
  /** Of the SDK. */
  version: string;
  /** Just begun: whoever hears it says itself. @default false */
  asks?: boolean | undefined;
  /** Closed: nothing more is to be expected of it. @default false */
  ends?: boolean | undefined;
  /** UTC milliseconds of the instance's clock: for display, and nothing else. */
  at: number;
}

/** What an instance says of its subscription; unknown fields are left out. */
export const Announcement = named<Announcement>()(
  z.object({
    topic: Topic,
    group: ConsumerGroupName.optional().describe('Absent: ephemeral'),
    routingKeys: z.array(RoutingKey).min(1).max(LIMITS.routingKeysPerSubscriptionMax),
    mode: z.string().regex(/^[A-Za-z]{1,32}$/),
    partitions: z.int().min(1).max(LIMITS.partitionsMax).optional().describe('Where it is ordered'),
    retryDelaysMs: z.array(z.int().min(1)).max(LIMITS.retryDelaysMax),
    queues: z.array(printable(255)).max(LIMITS.announcedQueuesMax),
    host: printable(255),
    instance: z.string().regex(/^[A-Za-z0-9-]{1,64}$/),
    version: printable(64).describe('Of the SDK'),
    asks: z.boolean().optional().describe('Just begun: whoever hears it says itself'),
    ends: z.boolean().optional().describe('Closed: nothing more is to be expected of it'),
    at: z.int().min(0).describe("UTC ms of the instance's clock: for display, and nothing else"),
  }),
);

/**
 * Reads what came by the exchange.
 * @param key the routing key it came with
 * @returns the announcement, or what is wrong with it
 */
export function readAnnouncement(body: Uint8Array, key: string): Announcement | string {
  if (body.length > LIMITS.announcementBytesMax) {
    return `it has ${body.length} bytes, and at most ${LIMITS.announcementBytesMax} are read`;
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    return 'it is not JSON';
  }
  const { success, data, error } = Announcement.safeParse(parsed);
  if (!success) {
    const [issue] = error.issues;
    return `${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'is not an announcement'}`;
  }
  if (announcementKey(data.topic, data.group) !== key) {
    return `it speaks of ${announcementKey(data.topic, data.group)} and came as ${key}`;
  }
  return data;
}
