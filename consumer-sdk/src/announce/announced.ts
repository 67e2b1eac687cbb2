import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { type AnnouncedMode, type Announcement, VERSION } from '@escrowmq/protocol';
import type { EphemeralSettings } from '../ephemeral/options.js';
import type { SubscribeSettings } from '../options.js';
import { partitionQueueOf } from '../ordered/topology.js';
import { queuesOf } from '../rabbit/topology.js';

/** What a subscription says of itself; the time is put in when it is said. */
export type Announced = Omit<Announcement, 'at'>;

export function announcedGroup(
  settings: SubscribeSettings,
  mode: Exclude<AnnouncedMode, 'ephemeral' | 'ordered'>,
): Announced {
  const { topic, group, routingKeys, retryDelaysMs, ordered } = settings;
  const queues = queuesOf(settings).map(({ name }) => name);
  const announced = { topic, group, routingKeys: [...routingKeys], ...myself() };
  const delays = { retryDelaysMs: [...retryDelaysMs] };
  if (ordered === undefined) return { ...announced, ...delays, mode, queues };
  const { partitions } = ordered;
  const ofPartitions = Array.from({ length: partitions }, (_, partition) => {
    return partitionQueueOf({ ...settings, partitions }, partition).name;
  });
  queues.push(...ofPartitions);
  return { ...announced, ...delays, mode: 'ordered', partitions, queues };
}

export function announcedEphemeral({ topic, routingKeys }: EphemeralSettings): Announced {
  const keys = { routingKeys: [...routingKeys], retryDelaysMs: [], queues: [] };
  return { topic, mode: 'ephemeral', ...keys, ...myself() };
}

/** An instance is a subscription: one process may have several of a group, and they may disagree. */
const myself = () => ({
  host: hostname().slice(0, 255) || '-',
  instance: randomUUID(),
  version: VERSION,
});
