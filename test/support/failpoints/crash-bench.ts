import { createServer, type Server } from 'node:http';
import { type Consumer, createConsumer, ensureConsumedTable, once } from '@escrowmq/consumer';
import { type CheckHandler, createCheckHandler, ensureBarrierTable } from '@escrowmq/producer';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { registerGroup } from '../broker-client.js';
import { type BrokerProcess, startBrokerProcess } from '../broker-process.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../servers.js';

/** Accounts of one case: from `first` on, fewer than this. */
export const ACCOUNTS_MAX = 100;

/** One case's part of what all of them share. */
export interface Part {
  first: number;
  producerGroup: string;
  consumerGroup: string;
  /** The broker's database. */
  store: string;
}

/** Everything that a case needs and that does not fail in it. */
export interface CrashBench {
  /** Of producers and consumers: accounts, barrier, effects. */
  database: string;
  pool: Pool;
  topic: string;
  /** Applies what comes by `topic`. */
  consumerGroup: string;
  /** A broker for the cases that let others fail, and its store. */
  broker: BrokerProcess;
  store: string;
  /** Registers a producer group whose checks are answered here, each at its second attempt. */
  register(brokerUrl: string, producerGroup: string): Promise<void>;
  /** In how many cases there was something to lose, and how much hung on a check. */
  counts(): Promise<{ cases: number; checks: number }>;
  close(): Promise<void>;
}

export async function openCrashBench(): Promise<CrashBench> {
  const database = await freshMysqlDatabase();
  const pool = createPool({ uri: database, connectionLimit: 24 });
  await ensureBarrierTable(pool);
  await ensureConsumedTable(pool);
  await pool.query('create table account (id int primary key, body varchar(100) not null)');
  await pool.query(`create table effect (
    consumer_group varchar(64), message_id varchar(64), account int not null,
    body varchar(100) not null, times int not null,
    primary key (consumer_group, message_id), key (account))`);
  const topic = uniqueName('account');
  const consumerGroup = uniqueName('accounts');
  const consumer = await consume(pool, topic, consumerGroup);
  const store = await freshMysqlDatabase();
  const broker = await startBrokerProcess({ store, rabbitmq: rabbitmqUrl() });
  const checks = new Map<string, CheckHandler>();
  const asked = new Set<string>();
  const server = await serveChecks(checks, asked);
  const { port } = server.address() as { port: number };

  return {
    database,
    pool,
    topic,
    consumerGroup,
    broker,
    store,
    async register(brokerUrl, producerGroup) {
      const url = `http://127.0.0.1:${port}/${producerGroup}`;
      const policy = { firstDelayMs: 300, delayMsMax: 500 };
      const { signingSecret } = await registerGroup(brokerUrl, producerGroup, [url], policy);
      const logger = { warn: () => undefined, error: () => undefined };
      const options = { signingSecret: String(signingSecret), database: pool, logger };
      checks.set(`/${producerGroup}`, createCheckHandler(options));
    },
    async counts() {
      const [rows] = await pool.query<RowDataPacket[]>(
        'select count(distinct id div ?) as cases from account',
        [ACCOUNTS_MAX],
      );
      return { cases: Number(rows[0]?.cases), checks: asked.size };
    },
    async close() {
      await consumer.close();
      await broker.stop();
      server.closeAllConnections();
      server.close();
      await pool.end();
    },
  };
}

async function consume(pool: Pool, topic: string, group: string): Promise<Consumer> {
  const consumer = createConsumer({ rabbitmq: rabbitmqUrl() });
  await consumer.subscribe<{ account: number; body: string }>(
    { topic, group, retryDelaysMs: [100] },
    async (message) => {
      const { account, body } = message.data;
      await once(pool, message, (tx) =>
        tx.execute(
          `insert into effect (consumer_group, message_id, account, body, times)
           values (?, ?, ?, ?, 1) on duplicate key update times = times + 1`,
          [group, message.id, account, body],
        ),
      );
    },
  );
  return consumer;
}

/** The first check of each transaction gets no answer, so that this is on every way as well. */
async function serveChecks(checks: Map<string, CheckHandler>, asked: Set<string>): Promise<Server> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', async () => {
      const body = Buffer.concat(chunks);
      const check = checks.get(String(request.url));
      const { id } = JSON.parse(body.toString());
      if (check === undefined || !asked.has(id)) {
        asked.add(id);
        response.writeHead(500).end();
        return;
      }
      const answer = await check(request.headers, body);
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(answer.body);
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return server;
}

/** What the databases say about a case, by their rows alone. Clean: every list is empty. */
export interface Truth {
  /** Accounts that are committed and whose message was not applied. */
  lost: number[];
  /** Applied, and not committed. */
  phantom: number[];
  /** Applied more than once. */
  twice: number[];
  /** Applied with another body than was committed. */
  altered: number[];
  /** Transactions that the broker still owes something, or has parked. */
  open: string[];
  /** Transactions whose decision is not that of the barrier. */
  disagreeing: string[];
}

const STORE_NAME = /^\/(\w+)$/;

export async function truthOf(pool: Pool, part: Part): Promise<Truth> {
  const [, store] = STORE_NAME.exec(new URL(part.store).pathname) ?? [];
  const list = async (sql: string, values: (string | number)[]) => {
    const [rows] = await pool.query<RowDataPacket[]>(sql, values);
    return rows.map((row) => row.it);
  };
  const { first, consumerGroup: group } = part;
  const last = first + ACCOUNTS_MAX - 1;
  const accounts = 'account between ? and ? and consumer_group = ?';
  const effects = [first, last, group];
  const transactions = `from ${store}.escrow_transaction t
    left join escrow_barrier b on b.transaction_id = t.id where t.producer_group = ?`;
  return {
    lost: await list(
      `select a.id as it from account a left join effect e
         on e.account = a.id and e.consumer_group = ?
       where a.id between ? and ? and e.account is null`,
      [group, first, last],
    ),
    phantom: await list(
      `select e.account as it from effect e left join account a on a.id = e.account
       where ${accounts} and a.id is null`,
      effects,
    ),
    twice: await list(
      `select account as it from effect where ${accounts} group by account having sum(times) > 1`,
      effects,
    ),
    altered: await list(
      `select e.account as it from effect e join account a on a.id = e.account
       where ${accounts} and a.body <> e.body`,
      effects,
    ),
    open: await list(
      `select concat(hex(t.id), ' ', t.state) as it ${transactions}
         and t.state not in ('forwarded', 'rolledBack')`,
      [part.producerGroup],
    ),
    disagreeing: await list(
      `select concat(hex(t.id), ' ', t.state, ' ', coalesce(b.decision, 'none')) as it ${transactions}
         and (t.state = 'forwarded') <> (coalesce(b.decision, 'none') = 'commit')`,
      [part.producerGroup],
    ),
  };
}

export const isClean = (truth: Truth) => Object.values(truth).every((list) => list.length === 0);
