import { mkdirSync, mkdtempSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import {
  ensureServerPackages,
  type PrivateMysql,
  type PrivateRabbitmq,
  startPrivateMysql,
  startPrivateRabbitmq,
} from '@escrowmq/local-servers';

/** RabbitMQ and two database servers of the demo's own, with two shards in each. */
export interface Servers {
  rabbitmq: PrivateRabbitmq;
  /** In the order that is the sharding. */
  shardUrls: string[];
  /** For the broker's store and for logs. */
  dir: string;
  /** Stops everything and deletes it. */
  remove(): Promise<void>;
  /** Stops everything and moves it to a folder that stays. @returns that folder */
  keep(): Promise<string>;
}

const SHARDS_PER_SERVER = 2;

export async function startServers(say: (sentence: string) => void): Promise<Servers> {
  await ensureServerPackages(['rabbitmq', 'mysql'], say);
  // No binary log: it would double the syncs of a disk that everything here shares.
  const [rabbitmq, first, second] = await Promise.all([
    startPrivateRabbitmq(),
    startPrivateMysql({ binaryLog: false }),
    startPrivateMysql({ binaryLog: false }),
  ]);
  const databases = [first, second];
  // In a folder that is deleted however this process ends, even by SIGKILL.
  const dir = join(first.dir, 'demo');
  mkdirSync(dir);
  return {
    rabbitmq,
    shardUrls: (await Promise.all(databases.map(createShards))).flat(),
    dir,
    async remove() {
      await Promise.all([rabbitmq, ...databases].map((server) => server.remove()));
    },
    async keep() {
      const folder = mkdtempSync(join(tmpdir(), 'escrowmq-demo-'));
      for (const server of [rabbitmq, ...databases]) {
        await server.stop();
        renameSync(server.dir, join(folder, basename(server.dir)));
        await server.remove();
      }
      return folder;
    },
  };
}

function createShards(server: PrivateMysql): Promise<string[]> {
  const names = Array.from({ length: SHARDS_PER_SERVER }, (_, number) => `accounts_${number}`);
  return Promise.all(names.map((name) => server.createDatabase(name)));
}
