import type { ConsumeMessage } from 'amqplib';
import { bindQueue } from './bound-queue.js';
import { call, view } from './broker-client.js';
import {
  type BrokerProcess,
  freshStore,
  type StoreKind,
  startBrokerProcess,
} from './broker-process.js';
import { rabbitmqUrl } from './servers.js';

/** A broker on a new store, and a queue that gets what it forwards to one topic. */
export interface BrokerBench extends BrokerProcess {
  /**
   * Prepares one message to the topic.
   * @param more replaces or adds to what the request says
   * @returns the transaction's id
   */
  prepare(producerGroup: string, more?: object): Promise<string>;
  stateOf(id: string): Promise<string>;
  /** What has arrived of that transaction. */
  received(id: string): ConsumeMessage[];
  /** Stops the broker and takes store and queue away. */
  remove(): Promise<void>;
}

export async function openBrokerBench(kind: StoreKind, topic: string): Promise<BrokerBench> {
  const store = await freshStore(kind);
  const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  return {
    ...broker,
    async prepare(producerGroup, more = {}) {
      const content = { producerGroup, messages: [{ topic, data: 1 }], ...more };
      return (await call(`${broker.url}/v1/transactions`, 'POST', content)).body.id;
    },
    stateOf: async (id) => (await view(broker.url, id)).state,
    received: (id) =>
      queue.received.filter(({ properties }) => String(properties.messageId).startsWith(id)),
    async remove() {
      await queue.close();
      await broker.stop();
      await store.remove();
    },
  };
}
