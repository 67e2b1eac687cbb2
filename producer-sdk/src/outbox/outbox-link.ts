import { EscrowError } from '@escrowmq/protocol';
import type { BrokerHttp } from '../client/broker-http.js';
import type { ProducerSettings } from '../options.js';

/** What a relay needs of a producer to send in its name; no part of its public face. */
export interface OutboxLink {
  http: BrokerHttp;
  settings: ProducerSettings;
}

/** On the producer itself, and the same in both builds of this package, which a process may mix. */
const LINK = Symbol.for('@escrowmq/producer/outbox-link');

export function linkOutbox(producer: object, link: OutboxLink): void {
  Object.defineProperty(producer, LINK, { value: link });
}

/** @throws {EscrowError} INVALID_CONFIGURATION for what `createProducer` has not made */
export function outboxLinkOf(producer: object & { [LINK]?: OutboxLink }): OutboxLink {
  const link = producer[LINK];
  if (link !== undefined) return link;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'the producer of an outbox relay must be one that createProducer has made; or give brokers and producerGroup instead',
  );
}
