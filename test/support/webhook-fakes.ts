import type { Message } from '@escrowmq/consumer';
import { WebhookSettings } from '@escrowmq/protocol';
import type { Webhook } from '../../broker/src/domain/webhook.js';
import { NOW } from './engine-fakes.js';

interface WebhookChanges extends Partial<Omit<Webhook, 'settings'>> {
  settings?: object;
}

/** An enabled webhook of the group `billing` on the topic `orders`, as the store hands it out. */
export const storedWebhook = ({ settings, ...changes }: WebhookChanges = {}): Webhook => ({
  name: 'billing',
  topic: 'orders',
  consumerGroup: 'billing',
  settings: WebhookSettings.parse({ url: 'http://127.0.0.1:1/hook', ...settings }),
  formerRoutingKeys: [],
  version: 0,
  revision: 1,
  signingSecrets: ['whsec_AAAA'],
  enabledAt: NOW - 1_000,
  ...changes,
});

const TRANSACTION = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';

/** A message as the consumer SDK hands it to a handler, prepared a second ago. */
export const delivered = (changes: Partial<Message> = {}): Message => {
  const message = {
    id: `${TRANSACTION}-0`,
    transactionId: TRANSACTION,
    number: 0,
    group: 'billing',
    topic: 'orders',
    routingKey: 'placed',
    data: { orderId: 7 },
    body: Buffer.from('{"orderId":7}'),
    contentType: 'application/json',
    headers: {},
    producerGroup: 'shop',
    preparedAt: NOW - 1_000,
    dueAt: undefined,
    orderingKey: undefined,
    sequence: undefined,
    attempts: 0,
    postponed: 0,
    returned: false,
    redelivered: false,
    signal: new AbortController().signal,
    ...changes,
  };
  return message;
};
