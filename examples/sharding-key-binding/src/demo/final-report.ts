import { SearchAnswer } from '@escrowmq/protocol';
import { countRepeated } from './deliveries.js';
import { countWaiting, readDeadLetters } from './queues.js';
import { readIndexEntries, readUsers } from './read-shards.js';
import { readStore } from './read-store.js';
import type { Scene } from './scene.js';
import { judge, type Verdict } from './verdict.js';
import { STEP_MS_MAX, waitFor, within } from './wait-for.js';

/**
 * A transaction that the killed broker had in hand is taken up again when its lease of 30 s has
 * run out; the rest is room for a busy machine.
 */
const DRAIN_MS_MAX = 120_000;

/** Waits until nothing is under way, stops every process, and reads the databases. */
export async function reportInTheEnd(scene: Scene): Promise<Verdict> {
  const { stage, ledger, narrator, lookUps } = scene;
  const { broker, producer, writers, shards, servers } = stage;
  const { url } = servers.rabbitmq;
  narrator.step('The end: everything under way is waited for, then every process is stopped.');
  await waitFor(
    'the broker to decide and forward everything',
    async () =>
      (await isNothing(broker.url, 'prepared')) && (await isNothing(broker.url, 'committed'))
        ? true
        : undefined,
    DRAIN_MS_MAX,
  );
  await waitFor(
    'the index writers to take everything',
    async () => ((await countWaiting(url)) === 0 ? true : undefined),
    DRAIN_MS_MAX,
  );
  await Promise.all([stage.client.close(), producer.child.stop(), writers.stop()]);
  await broker.stop();
  narrator.say('All have stopped. What follows is read from the databases.');

  const figures = {
    users: await readUsers(shards),
    entries: await readIndexEntries(shards),
    repeated: await countRepeated(shards),
    deadLetters: await within('the dead letters', STEP_MS_MAX, readDeadLetters(url)),
    waiting: await within('the lengths of the queues', STEP_MS_MAX, countWaiting(url)),
    broker: readStore(broker.storePath),
    lookUps,
  };
  await shards.close();
  return judge(ledger, figures);
}

async function isNothing(brokerUrl: string, state: string): Promise<boolean> {
  const response = await fetch(`${brokerUrl}/v1/transactions?state=${state}&limit=1`);
  return SearchAnswer.parse(await response.json()).transactions.length === 0;
}
