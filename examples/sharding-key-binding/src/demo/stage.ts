import { join } from 'node:path';
import { createProducer, type Producer } from '@escrowmq/producer';
import { CHECK_PATH } from '../producer-service.js';
import { PRODUCER_GROUP } from '../registration.js';
import { createTables, openShards, type Shards } from '../shards.js';
import { type BrokerProcess, startBroker } from './broker-process.js';
import type { Child } from './child.js';
import type { Crew } from './crew.js';
import type { HaltPoint } from './halting-pool.js';
import type { FromChild, ProducerSettings, WriterSettings } from './messages.js';
import { type Servers, startServers } from './servers.js';
import { STEP_MS_MAX, waitFor, within } from './wait-for.js';

/** Everything that runs when the first step begins. */
export interface Stage {
  servers: Servers;
  broker: BrokerProcess;
  shards: Shards;
  /** The demo's own client, for look-ups and questions. */
  client: Producer;
  /** The producer that nobody kills. */
  producer: ProducerProcess;
  writers: Child;
  /** Starts another one, whose transactions all halt there. */
  startHaltingProducer(haltAt: HaltPoint): Promise<ProducerProcess>;
}

/** A producer service in a process of its own. */
export interface ProducerProcess {
  url: string;
  child: Child;
  /** Resolves when that many transactions have come to the halt point. */
  halted(count: number): Promise<void>;
  /** Lets them go on. */
  goOn(): void;
}

export interface StageOptions {
  crew: Crew;
  /** Producers look instead of deciding when they are asked. */
  naiveCheck: boolean;
  say(sentence: string): void;
}

/**
 * Checks come after two seconds: soon, since the demo waits for them, and yet later than any
 * registration takes on a busy machine. Answers "unknown" are never used up: a transaction that is
 * parked stays open, and this demo wants an end.
 */
const CHECK_POLICY = { firstDelayMs: 2_000, delayMsMax: 2_000, unknownMax: 1_000 };

export async function openStage(options: StageOptions): Promise<Stage> {
  const { crew, say } = options;
  const servers = await startServers(say);
  const { dir, shardUrls, rabbitmq } = servers;
  const shards = openShards(shardUrls);
  const [broker] = await Promise.all([
    startBroker({ crew, dir, rabbitmqUrl: rabbitmq.url }),
    createTables(shards),
  ]);
  const client = createProducer({ brokers: [broker.url], producerGroup: PRODUCER_GROUP });

  const group = { checkPolicy: CHECK_POLICY };
  const { signingSecret = '' } = await client.registerGroup({ ...group, checkUrls: [] });
  const checkUrls: string[] = [];
  async function startProducer(name: string, haltAt?: HaltPoint): Promise<ProducerProcess> {
    const settings: ProducerSettings = {
      brokerUrl: broker.url,
      shardUrls,
      signingSecret,
      naiveCheck: options.naiveCheck,
      ...(haltAt === undefined ? {} : { haltAt }),
    };
    const producer = await startProducerProcess({ crew, dir, name }, settings);
    checkUrls.push(producer.url + CHECK_PATH);
    await client.registerGroup({ ...group, checkUrls });
    return producer;
  }

  const [producer, writers] = await Promise.all([
    startProducer('the producer'),
    startWriters({ crew, dir }, { rabbitmqUrl: rabbitmq.url, shardUrls }),
  ]);
  return {
    servers,
    broker,
    shards,
    client,
    producer,
    writers,
    startHaltingProducer: (haltAt) => startProducer(`the producer that halts at ${haltAt}`, haltAt),
  };
}

async function startProducerProcess(
  where: { crew: Crew; dir: string; name: string },
  settings: ProducerSettings,
): Promise<ProducerProcess> {
  const { crew, dir, name } = where;
  const module = new URL('./producer-process.js', import.meta.url);
  const child = crew.start({ name, module, log: join(dir, 'producers.log') });
  let halted = 0;
  child.onMessage((message) => {
    if ((message as FromChild).type === 'halted') halted += 1;
  });
  const { url = '' } = await begin(child, settings);
  return {
    url,
    child,
    async halted(count) {
      await waitFor(`${count} transactions to stand still in ${name}`, async () =>
        halted >= count ? true : undefined,
      );
    },
    goOn: () => child.send({ type: 'goOn' }),
  };
}

async function startWriters(
  { crew, dir }: { crew: Crew; dir: string },
  settings: WriterSettings,
): Promise<Child> {
  const module = new URL('./writer-process.js', import.meta.url);
  const child = crew.start({ name: 'the index writers', module, log: join(dir, 'writers.log') });
  await begin(child, settings);
  return child;
}

/** Sends the settings and waits until the process says that it is ready. */
async function begin(child: Child, settings: object): Promise<{ url?: string }> {
  const ready = new Promise<{ url?: string }>((resolve, reject) => {
    child.onMessage((value) => {
      const message = value as FromChild;
      if (message.type === 'ready') resolve(message);
      if (message.type === 'failed') reject(new Error(`${child.name}: ${message.message}`));
    });
  });
  child.send({ type: 'start', settings });
  return within(`${child.name} to be ready`, STEP_MS_MAX, ready);
}
