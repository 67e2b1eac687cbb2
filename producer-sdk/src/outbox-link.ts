import { EscrowError } from '@escrowmq/protocol';
import type { BrokerHttp } from './broker-http.js';
import type { ProducerSettings } from './options.js';

/** What a relay needs of a producer to send in its name; no part of its public face. */
export interface OutboxLink {
  http: BrokerHttp;
  settings: ProducerSettings;
}

const links = new WeakMap<object, OutboxLink>();

export function linkOutbox(producer: object, link: OutboxLink): void {
  links.set(producer, link);
}

/** @throws {EscrowError} INVALID_CONFIGURATION for what `createProducer` has not made */
export function outboxLinkOf(producer: object): OutboxLink {
  const link = links.get(producer);
  if (link !== undefined) return link;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'the producer of an outbox relay must be what createProducer of this very package has made; or give brokers and producerGroup instead',
  );
}
