import {
  createCheckHandler,
  createProducer,
  nodeCheckListener,
  type ProducerOptions,
} from '@escrowmq/producer';
import type { Pool } from 'mysql2/promise';
import { startProducerService } from '../producer-service.js';
import { PRODUCER_GROUP } from '../registration.js';
import { openShards, type Shards, shardsOf } from '../shards.js';
import { haltingPool } from './halting-pool.js';
import type { ProducerSettings } from './messages.js';
import { naiveCheckHandler } from './naive-check.js';
import { serve, tell } from './serve.js';

/*
 * The producer service as a process of its own, which the demo starts, halts and kills.
 */

/**
 * The demo kills the broker and stands still inside transactions on purpose, and nobody waits at a
 * screen: a registration may take as long as a restart of the broker on a busy machine.
 */
const PATIENT: Partial<ProducerOptions> = {
  prepareTimeoutMs: 50_000,
  verdictTimeoutMs: 50_000,
  connectionTimeoutMs: 50_000,
  settleTimeoutMs: 50_000,
};

serve(async (settings: ProducerSettings) => {
  const shards = openShards(settings.shardUrls);
  const producer = createProducer({
    brokers: [settings.brokerUrl],
    producerGroup: PRODUCER_GROUP,
    ...PATIENT,
  });
  const halting = haltingShards(shards, settings);
  const service = await startProducerService({
    producer,
    shards: halting.shards,
    check: nodeCheckListener(checkHandler(shards, settings)),
  });
  return {
    url: service.url,
    goOn: halting.goOn,
    async close() {
      await service.close();
      await producer.close();
      await shards.close();
    },
  };
});

function checkHandler(shards: Shards, { signingSecret, naiveCheck }: ProducerSettings) {
  if (naiveCheck) return naiveCheckHandler(shards);
  const databases: Record<string, Pool> = {};
  for (const { name, pool } of shards.all) databases[name] = pool;
  return createCheckHandler({ signingSecret, databases, producerGroup: PRODUCER_GROUP });
}

/** The shards to write to: all of them halt at the given place, until `goOn`. */
function haltingShards(shards: Shards, { haltAt }: ProducerSettings) {
  if (haltAt === undefined) return { shards, goOn: () => {} };
  let goOn = () => {};
  const mayGoOn = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const halt = async () => {
    tell({ type: 'halted' });
    await mayGoOn;
  };
  const halting = shards.all.map(({ name, pool }) => ({
    name,
    pool: haltingPool(pool, haltAt, halt),
  }));
  return { shards: shardsOf(halting), goOn };
}
