import { type PrivateMysql, startPrivateMysql } from '@escrowmq/local-servers';
import { afterEach, expect, test } from '@jest/globals';
import { createConnection } from 'mysql2/promise';
import { bindQueue } from '../support/bound-queue.js';
import { call, registerGroup } from '../support/broker-client.js';
import { type BrokerProcess, startBrokerProcess } from '../support/broker-process.js';
import { describeUnless } from '../support/describe-unless.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { mountSmallDisk, type SmallDisk, smallDiskProblem } from '../support/small-disk.js';
import { until } from '../support/until.js';

/** Each takes pages of its own, so that a full disk is noticed by the first or second. */
const BODY = 'x'.repeat(200_000);
/** More than what a store of either kind has left when its disk is full. */
const PREPARES_MAX = 60;

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

async function start(store: string): Promise<BrokerProcess> {
  const broker = await startBrokerProcess({ store, rabbitmq: rabbitmqUrl() });
  clean.push(() => broker.kill());
  await registerGroup(broker.url, 'accounts');
  return broker;
}

const prepare = (broker: BrokerProcess, topic: string) =>
  call(`${broker.url}/v1/transactions`, 'POST', {
    producerGroup: 'accounts',
    messages: [{ topic, data: BODY }],
  });
const commit = (broker: BrokerProcess, id: string) =>
  call(`${broker.url}/v1/transactions/${id}/commit`, 'POST');

/** Prepares until the store takes no more; every one that was acknowledged is then forwarded. */
async function goThrough(broker: BrokerProcess, trouble: { begin(): unknown; end(): unknown }) {
  const topic = uniqueName('user');
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  clean.push(() => queue.close());
  const acknowledged = [String((await prepare(broker, topic)).body.id)];
  await trouble.begin();
  let refused: Awaited<ReturnType<typeof prepare>> | undefined;
  for (let attempt = 1; attempt <= PREPARES_MAX && refused === undefined; attempt += 1) {
    const answer = await prepare(broker, topic);
    if (answer.status === 201) acknowledged.push(String(answer.body.id));
    else refused = answer;
  }
  expect(refused).toMatchObject({
    status: 503,
    body: { code: 'STORE_UNAVAILABLE', retryable: true },
    headers: { 'retry-after': expect.any(String) },
  });
  await trouble.end();
  await until(
    'the store takes a prepare again',
    async () => {
      const answer = await prepare(broker, topic);
      if (answer.status !== 201) return false;
      acknowledged.push(String(answer.body.id));
      return true;
    },
    30_000,
  );
  for (const id of acknowledged) {
    await until(`the commit of ${id} is taken`, async () => {
      const { status } = await commit(broker, id);
      return status === 200;
    });
  }
  await until(
    'all that was acknowledged is there',
    () => new Set(queue.messageIds()).size === acknowledged.length,
  );
  expect(new Set(queue.messageIds())).toEqual(new Set(acknowledged.map((id) => `${id}-0`)));
}

test('a MySQL that becomes read-only refuses prepares for as long as it is, and no longer (F06)', async () => {
  const mysql = await startPrivateMysql();
  clean.push(() => mysql.remove());
  const root = await createConnection(mysql.url);
  clean.push(() => root.end());
  // Whoever may administer a server may write to it all the same.
  await root.query("create user 'broker'@'%' identified by 'broker'");
  await root.query("grant all on escrow.* to 'broker'@'%'");
  const broker = await start(`mysql://broker:broker@127.0.0.1:${mysql.port}/escrow`);
  await goThrough(broker, {
    begin: () => root.query('set global read_only = 1'),
    end: () => root.query('set global read_only = 0'),
  });
  expect(await broker.stop()).toBe(0);
});

describeUnless(smallDiskProblem())('a disk that is full in the middle of work', () => {
  function disk(megabytes: number): SmallDisk {
    const made = mountSmallDisk(megabytes);
    clean.push(() => made.remove());
    return made;
  }

  test('costs a SQLite store nothing that it has acknowledged (F06, F77)', async () => {
    const small = disk(16);
    const broker = await start(`sqlite:${small.folder}/escrow.db`);
    await goThrough(broker, { begin: () => small.fill(), end: () => small.free() });
    expect(await broker.stop()).toBe(0);
  });

  test('costs a MySQL store nothing that it has acknowledged (F06, F77)', async () => {
    const small = disk(384);
    // With a binary log MariaDB waits a minute for space, at a time.
    const options = { parentDir: small.folder, binaryLog: false };
    const mysql: PrivateMysql = await startPrivateMysql(options);
    clean.push(() => mysql.remove());
    const broker = await start(mysql.url);
    await goThrough(broker, {
      begin: () => small.fill(),
      async end() {
        small.free();
        // InnoDB 10.11 refuses rows for a while, and then ends itself; a supervisor starts it again.
        await mysql.restart();
      },
    });
    expect(await broker.stop()).toBe(0);
  });
});
