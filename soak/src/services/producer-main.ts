import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { createCheckHandler, createProducer, nodeCheckListener } from '@escrowmq/producer';
import type { RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import { askUntilAnswered, openPool } from './ask.js';
import { doJob } from './do-job.js';
import { type Job, jobOf, messageOf } from './jobs.js';
import { Grant, PRODUCER_GROUP, ProducerSettings, readSettings, report } from './settings.js';

/*
 * A producer of the soak: its own database, transactions through the SDK, and an endpoint that
 * answers checks for all producers' databases. It can be killed at any point and started again: it
 * then goes on after the last job that its database knows of, and sends again what was not
 * acknowledged.
 */

/**
 * Enough for the commits of one flush to share a sync. Twice as many were no quicker on two cores,
 * and on busy ones too many calls ran out of their second, so that less was tried.
 */
const WORKERS = 32;
const CHECK_CONNECTIONS = 8;
const REPEAT_PAUSE_MS = 200;

const settings = readSettings(ProducerSettings);
const { name, seed } = settings;

// Checks have connections of their own: transactions that fill the pool are what they ask about.
const pool = openPool(urlOf(name), WORKERS);
const databases = Object.fromEntries(
  Object.entries(settings.databases).map(([database, url]) => [
    database,
    openPool(url, CHECK_CONNECTIONS),
  ]),
);
const producer = createProducer({
  brokers: settings.brokers,
  producerGroup: PRODUCER_GROUP,
  // A transaction on a connection that fell into a black hole ends within a run of minutes.
  transactionTimeoutMs: 10_000,
});
const check = createCheckHandler({
  signingSecret: settings.signingSecret,
  producerGroup: PRODUCER_GROUP,
  databases,
});
const server = http.createServer(nodeCheckListener(check)).listen(settings.checkPort, '127.0.0.1');
await once(server, 'listening');

let granted = 0;
process.on('message', (message) => {
  granted = Math.max(granted, Grant.parse(message).grant);
});
process.once('SIGTERM', () => void stop());

let next = await firstJob();
report({ started: next });
report({ ready: true });
await sendAgain();
await Promise.all(Array.from({ length: WORKERS }, work));
report({ done: true });

function urlOf(database: string): string {
  const url = settings.databases[database];
  if (url === undefined) throw new Error(`${database} is not among the databases`);
  return url;
}

/** After the last one that was begun: what became of that one is the check's business. */
async function firstJob(): Promise<number> {
  const [last] = await askUntilAnswered<RowDataPacket & { next: number }>(
    pool,
    'select coalesce(max(job) + 1, 0) as next from attempt',
  );
  return Number(last?.next ?? 0);
}

async function work(): Promise<void> {
  while (next < settings.transactions) {
    if (next >= granted) {
      await pause(REPEAT_PAUSE_MS);
      continue;
    }
    const job = jobOf(seed, name, next);
    next += 1;
    // Repeated after a lost answer, it finds its own row.
    await askUntilAnswered(pool, 'insert ignore into attempt (job, kind) values (?, ?)', [
      job.number,
      job.kind,
    ]);
    report({ started: job.number + 1 });
    if (job.kind === 'send') await send(job);
    else report({ outcome: await doJob({ producer, pool, database: name }, job) });
  }
}

/** Noted before it is sent, so that a crash in between sends it later. */
async function send(job: Job): Promise<void> {
  const id = uuidv7();
  await askUntilAnswered(
    pool,
    'insert ignore into send (transaction_id, job, sha256) values (?, ?, ?)',
    [id, job.number, job.bodies[0]?.sha256],
  );
  await sendUntilAcknowledged(id, job);
}

async function sendUntilAcknowledged(id: string, { bodies }: Job): Promise<void> {
  for (;;) {
    try {
      await producer.send({ id, messages: bodies.map(messageOf) });
      break;
    } catch (error) {
      // The same id as before, so that it is one transaction however often it is sent.
      process.stderr.write(`send ${id}: ${error}\n`);
      await pause(REPEAT_PAUSE_MS);
    }
  }
  await askUntilAnswered(pool, 'update send set acknowledged = 1 where transaction_id = ?', [id]);
}

/** What an earlier life of this process had not got acknowledged. */
async function sendAgain(): Promise<void> {
  const rows = await askUntilAnswered<RowDataPacket & { transaction_id: string; job: number }>(
    pool,
    'select transaction_id, job from send where acknowledged = 0',
  );
  await Promise.all(
    rows.map(({ transaction_id, job }) =>
      sendUntilAcknowledged(transaction_id, jobOf(seed, name, job)),
    ),
  );
}

async function stop(): Promise<void> {
  server.closeAllConnections();
  server.close();
  await producer.close();
  process.exit(0);
}
