import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePorts } from '@escrowmq/local-servers';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import {
  type PageFolder,
  type PageProgram,
  pageFolder,
  snippetsOf,
} from '../support/page-program.js';
import { prismaClientFor } from '../support/prisma-client.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * docs/producer.md, run: the snippets of one database library and one web framework after the
 * other are one program, which lives until its standard input ends.
 */

const snippet = await snippetsOf('producer.md');

const SIGNING_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

const SECTION = {
  register: '## 3. The barrier table and the producer group',
  enlist: '## 8. A transaction that you opened yourself',
  supply: '## 9. Data that is known only in the transaction',
  outbox: '## 10. Outbox mode',
  typed: '## 13. Typed topics',
};
const APP_MODULE = `import 'reflect-metadata';
import { Module } from '@nestjs/common';
export class AppModule {}
Module({})(AppModule);
`;
/** The fault kit waits out every limit of the SDK: half a minute. */
const PROGRAM_MS_MAX = 110_000;

let broker: BrokerProcess;
let store: Awaited<ReturnType<typeof freshStore>>;
let pool: Pool;
let databaseUrl: string;
let queue: BoundQueue;
let folder: PageFolder;
let program: PageProgram | undefined;

beforeAll(async () => {
  queue = await bindQueue(rabbitmqUrl(), [{ topic: 'user', routingKey: '#' }]);
});
afterAll(() => queue.close());

beforeEach(async () => {
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  databaseUrl = await freshMysqlDatabase();
  pool = createPool(databaseUrl);
  await pool.query('create table user (id int primary key, phone varchar(20))');
  await pool.query('create table ticket (id int auto_increment primary key, note varchar(20))');
  folder = await pageFolder('producer-page');
  await writeFile(join(folder.path, 'app.module.js'), APP_MODULE);
});
afterEach(async () => {
  program?.kill();
  await pool.end();
  await broker.stop();
  await store.remove();
  await folder.remove();
});

interface Run {
  /** What it printed, line by line, up to `ready`. */
  lines: string[];
  checkUrl: string;
}

/** Starts the program that these snippets make, and waits until it is through. */
async function run(headings: string[], edit = (source: string) => source): Promise<Run> {
  const [port] = await freePorts(1);
  const source = edit(headings.map(snippet).join('\n')).replaceAll('8080', String(port));
  const env = { DATABASE_URL: databaseUrl, BROKER_URL: broker.url, SIGNING_SECRET };
  program = await folder.run(source, env, PROGRAM_MS_MAX);
  return {
    lines: program.lines(),
    checkUrl: `http://127.0.0.1:${port}/escrow-check`,
  };
}

const idsOf = async (table: 'user' | 'ticket') =>
  (await pool.query<RowDataPacket[]>(`select id from ${table} order by id`))[0].map(({ id }) => id);

const delivered = (data: object) =>
  until(`${JSON.stringify(data)} is delivered`, () =>
    queue.received.some(({ content }) => content.toString() === JSON.stringify(data)),
  );

test('N15: housekeeping', async () => {
  expect((await run(['## 12. Housekeeping'])).lines).toEqual(['ready']);
});

test.each([
  ['mysql2', 'Express'],
  ['Prisma', 'Fastify'],
  ['TypeORM', 'Nest'],
])('with %s and %s a transaction is committed, and a check is answered', async (layer, web) => {
  const client = layer === 'Prisma' ? await prismaClientFor('mysql', USER_MODEL) : '';
  const headings = [`### ${layer}`, SECTION.register, `### ${web}`, `### with ${layer}`];
  const { lines, checkUrl } = await run(headings, (source) =>
    source
      .replace("from '@prisma/client'", `from ${JSON.stringify(client)}`)
      .replace('import { PrismaClient } from', 'import prismaClient from')
      .replace('new PrismaClient(', 'new prismaClient.PrismaClient('),
  );
  expect(lines).toContain('committed');
  expect(await idsOf('user')).toEqual([7]);
  await delivered({ id: 7, phone: '13800000000' });

  // Prepared and then left alone: the broker has to ask.
  const id = uuidv7();
  await call(`${broker.url}/v1/transactions`, 'POST', {
    id,
    producerGroup: 'accounts',
    checkAfterMs: 0,
    messages: [{ topic: 'user', data: 1 }],
  });
  await until('it is decided', async () => (await view(broker.url, id)).decision !== undefined);
  expect((await view(broker.url, id)).decision).toMatchObject({
    decision: 'rollback',
    by: `check ${checkUrl}`,
  });
});

const USER_MODEL = `model user {
  id    Int    @id
  phone String
}
`;

test('a transaction that was opened elsewhere, late data and outbox mode work as shown', async () => {
  await queue.close();
  queue = await bindQueue(rabbitmqUrl(), [{ topic: 'user', routingKey: '#' }]);
  const headings = ['### mysql2', SECTION.register, SECTION.enlist, SECTION.supply, SECTION.outbox];
  await run(
    headings,
    (source) => `${source}
await boxed.transaction(database, { topic: 'user', data: 'boxed' }, (tx) =>
  tx.execute("insert into user values (9, '')"));
if (outcome !== 'committed') throw new Error(outcome);
`,
  );
  expect(await idsOf('user')).toEqual([8, 9]);
  await delivered({ ticketId: (await idsOf('ticket'))[0] });
  await delivered({ id: 8 });
  await until('the outbox was sent', () =>
    queue.received.some(({ content }) => content.toString() === '"boxed"'),
  );
});

test('N10: typed topics work as shown', async () => {
  await queue.close();
  queue = await bindQueue(rabbitmqUrl(), [{ topic: 'user', routingKey: '#' }]);
  const { lines } = await run(['### mysql2', SECTION.register, SECTION.typed]);
  expect(await idsOf('user')).toEqual([9]);
  await delivered({ street: 'Kirchweg 1', city: 'Bremen' });
  await until('all three are delivered', () => queue.received.length === 3);
  expect(lines.at(-2)).toBe(
    'the data of message 0 do not fit topic user, key registered: userId: Invalid input: expected number, received string',
  );
});

/** What a service's own test has at hand. */
const HARNESS = `
import http from 'node:http';
import { createCheckHandler, ensureBarrierTable, nodeCheckListener } from '@escrowmq/producer';
const { username: user, password, pathname } = new URL(process.env.DATABASE_URL);
const database = pathname.slice(1);
const own = createPool(process.env.DATABASE_URL);
await own.query('create table account (id int primary key)');
await ensureBarrierTable(own);
const signingSecret = 'whsec_${Buffer.alloc(32, 1).toString('base64')}';
const silent = { warn() {}, error() {} };
const answer = createCheckHandler({ producerGroup: 'accounts', signingSecret, database: own, logger: silent });
http.createServer(nodeCheckListener(answer, { logger: silent })).listen(8080, '127.0.0.1');
const findAccount = async (id) => (await own.query('select id from account where id = ?', [id]))[0][0];
`;

test('the fault kit finds nothing wrong with the SDK, as shown', async () => {
  const { port } = new URL(databaseUrl);
  const { lines } = await run(['## 11. Test your own producer'], (source) =>
    `${HARNESS}${source}\nconsole.log(verdicts.length);`.replace('port: 3306', `port: ${port}`),
  );
  expect(Number(lines.at(-2))).toBeGreaterThan(20);
}, 120_000);

test('the program ends when it is told to', async () => {
  await run(['### mysql2', SECTION.register, '### with mysql2']);
  const child = (program as PageProgram).child;
  child.stdin?.end();
  const [code] = await once(child, 'exit');
  expect(code).toBe(0);
});
