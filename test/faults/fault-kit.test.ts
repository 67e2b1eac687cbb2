import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  createCheckHandler,
  createProducer,
  nodeCheckListener,
  type Producer,
} from '@escrowmq/producer';
import { createFaultKit, FAULT_SCENARIOS, type FaultKit } from '@escrowmq/producer/testing';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';
import {
  MARIADB,
  POSTGRES,
  SQLITE,
  type SuiteConnections,
  type SuiteDatabase,
} from '../support/producer-databases.js';

/** Without a server there is no connection to cut. */
const NEED_A_PROXY = [
  'a COMMIT that never reaches the database',
  'a COMMIT whose answer gets lost',
  'a check while the database can not be reached',
];

describe.each([MARIADB, POSTGRES, SQLITE])("the SDK's own producer on $name", (kind) => {
  const { logger } = recordingLogger();
  /** What each call came to, to be held against the database. */
  const results = new Map<number, string>();
  let suite: SuiteDatabase;
  let kit: FaultKit;
  let connections: SuiteConnections;
  let producer: Producer;

  beforeAll(async () => {
    suite = await kind.start();
    kit = await createFaultKit({
      producerGroup: 'accounts',
      signingSecret: SIGNING_SECRET,
      check: (headers, body) => check(headers, body),
      transaction: ({ number, pause }) =>
        producer
          .transaction(connections.database, { topic: 'user', data: number }, async (tx) => {
            await suite.send(tx, `insert into account (id) values (${number})`);
            await pause();
          })
          .then(
            (result) => {
              results.set(number, result.outcome);
              return result;
            },
            (error: unknown) => {
              results.set(number, 'thrown');
              throw error;
            },
          ),
      committed: async ({ number }) => (await suite.accounts()).includes(number),
    });
    if (kind.dialect === 'sqlite') {
      connections = suite.connect();
    } else {
      const { hostname, port } = new URL(suite.url);
      connections = suite.connect(await kit.proxy({ host: hostname, port: Number(port) }));
    }
    const check = createCheckHandler({
      signingSecret: SIGNING_SECRET,
      producerGroup: 'accounts',
      database: connections.database,
      logger,
    });
    producer = createProducer({ brokers: [kit.address], producerGroup: 'accounts', logger });
  });
  afterAll(async () => {
    await producer.close();
    await kit.close();
    await suite.close();
  });

  test.each(FAULT_SCENARIOS)('is safe in %s', async (scenario) => {
    const verdict = await kit.runScenario(scenario);
    expect(verdict).toMatchObject({ scenario, passed: true });
    const isSkipped = kind.dialect === 'sqlite' && NEED_A_PROXY.includes(scenario);
    expect(verdict.skipped ?? false).toBe(isSkipped);
  });

  test('returned committed for what is durable, and threw for what is not', async () => {
    const durable = await suite.accounts();
    expect(new Set(results.values())).toEqual(new Set(['committed', 'thrown']));
    for (const [number, result] of results) {
      expect(result).toBe(durable.includes(number) ? 'committed' : 'thrown');
    }
  });

  test('has a paragraph for each scenario in the report', () => {
    const paragraphs = kit.report().split('\n');
    expect(paragraphs).toHaveLength(FAULT_SCENARIOS.length);
    expect(paragraphs[0]).toMatch(
      /^passed {2}an undisturbed transaction that commits: committed; /,
    );
  });
});

test('a service with a check endpoint at a URL passes, in the words of the manual', async () => {
  const producerGroup = 'accounts';
  const signingSecret = SIGNING_SECRET;
  const { logger } = recordingLogger();
  const given = await startProducerDatabase();
  const server = createServer((request, response) => endpoint(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port: checkPort } = server.address() as AddressInfo;

  const kit = await createFaultKit({
    producerGroup,
    signingSecret,
    check: `http://127.0.0.1:${checkPort}/escrow-check`,
    transaction: ({ number, pause }) =>
      producer.transaction(pool, { topic: 'user', data: { id: number } }, async (tx) => {
        await tx.execute('insert into account (id) values (?)', [number]);
        await pause();
      }),
    committed: async ({ number }) => (await given.accounts()).includes(number),
  });
  const { hostname, port } = new URL(given.url);
  const proxy = await kit.proxy({ host: hostname, port: Number(port) });

  // The service, as its start-up code makes it, but for the two addresses.
  const url = new URL(given.url);
  url.port = String(proxy.port);
  const pool = given.pool({ uri: url.href });
  const producer = createProducer({ brokers: [kit.address], producerGroup, logger });
  const endpoint = nodeCheckListener(
    createCheckHandler({ signingSecret, producerGroup, database: pool, logger }),
  );

  const verdicts = await kit.run();
  expect(verdicts.filter(({ passed, skipped }) => !passed || skipped)).toEqual([]);

  await producer.close();
  await kit.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await given.close();
});
