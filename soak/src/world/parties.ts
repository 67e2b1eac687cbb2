import type { TcpProxy } from '@escrowmq/local-servers';
import { createProducer } from '@escrowmq/producer';
import type { LinkName, ProcessName } from '../nemesis/fault.js';
import { PRODUCER_GROUP } from '../services/settings.js';
import type { Child } from './child.js';
import {
  BROKERS,
  CONSUMER_DATABASE,
  CONSUMERS,
  PRODUCER_DATABASES,
  PRODUCERS,
  STORE_DATABASE,
} from './names.js';
import { startBroker, startConsumer, startProducerProcess } from './processes.js';
import { type Databases, watchStates } from './set-up-databases.js';

/* Starts the six processes, each with the ways to the others that lead through its own proxies. */

export interface Parties {
  seed: number;
  transactions: number;
  /** Where the logs go. */
  folder: string;
  databases: Databases;
  proxies: Record<LinkName, TcpProxy>;
  brokerPorts: Record<(typeof BROKERS)[number], number>;
  endpointPorts: Record<(typeof PRODUCERS)[number], number>;
  hear(name: string): (message: unknown) => void;
}

/** Resolves when all of them are ready. */
export async function startParties(parties: Parties): Promise<Record<ProcessName, Child>> {
  const brokers = await startBrokers(parties);
  await watchStates(parties.databases);
  const consumers = startConsumers(parties);
  await Promise.all(consumers.map((consumer) => consumer.ready()));
  const producers = startProducers(parties, await registerGroup(parties));
  await Promise.all(producers.map((producer) => producer.ready()));
  return Object.fromEntries(
    [...brokers, ...producers, ...consumers].map((child) => [child.name, child]),
  ) as Record<ProcessName, Child>;
}

function startBrokers({ databases, proxies, brokerPorts, folder }: Parties): Promise<Child[]> {
  return Promise.all(
    BROKERS.map((name) =>
      startBroker({
        name,
        folder,
        port: brokerPorts[name],
        store: databases.store.url(proxies[`${name}>store`].port, STORE_DATABASE),
        rabbitmq: rabbitmqUrl(proxies[`${name}>rabbitmq`].port),
      }),
    ),
  );
}

function startConsumers({ databases, proxies, folder, hear }: Parties): Child[] {
  return CONSUMERS.map((name) =>
    startConsumer({
      folder,
      hear: hear(name),
      settings: {
        name,
        rabbitmq: rabbitmqUrl(proxies[`${name}>rabbitmq`].port),
        database: databases.services.url(proxies[`${name}>database`].port, CONSUMER_DATABASE),
      },
    }),
  );
}

function startProducers(parties: Parties, signingSecret: string): Child[] {
  const { seed, transactions, folder, databases, proxies, endpointPorts, hear } = parties;
  const half = Math.floor(transactions / PRODUCERS.length);
  const shares = { 'producer-1': transactions - half, 'producer-2': half };
  return PRODUCERS.map((name) => {
    const urlOf = (database: string) =>
      databases.services.url(proxies[`${name}>database`].port, database);
    return startProducerProcess({
      folder,
      hear: hear(name),
      settings: {
        name,
        seed,
        signingSecret,
        brokers: BROKERS.map((broker) => httpUrl(proxies[`${name}>${broker}`].port)),
        databases: Object.fromEntries(
          PRODUCERS.map((producer) => [producer, urlOf(PRODUCER_DATABASES[producer])]),
        ),
        checkPort: endpointPorts[name],
        transactions: shares[name],
      },
    });
  });
}

/**
 * Checks come soon after one another, and never so often that one is given up for good.
 *
 * @returns the group's signing secret
 */
async function registerGroup({ brokerPorts, proxies }: Parties): Promise<string> {
  const producer = createProducer({
    brokers: [httpUrl(brokerPorts['broker-1'])],
    producerGroup: PRODUCER_GROUP,
  });
  try {
    const { signingSecret } = await producer.registerGroup({
      checkUrls: PRODUCERS.map((name) => `${httpUrl(proxies[`brokers>${name}`].port)}/check`),
      checkPolicy: { delayMsMax: 1_000, unknownMax: 1_000, concurrencyMax: 16 },
    });
    if (signingSecret === undefined) throw new Error('the producer group existed before');
    return signingSecret;
  } finally {
    await producer.close();
  }
}

const httpUrl = (port: number) => `http://127.0.0.1:${port}`;
const rabbitmqUrl = (port: number) => `amqp://guest:guest@127.0.0.1:${port}`;
