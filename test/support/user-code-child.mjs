/*
 * A consumer as a process of its own, on the built code, whose users' code does what it should not: its
 * handlers, listeners, tracer and logger. JavaScript on purpose, as it runs without jest's transform.
 *
 *   user-code-child.mjs <rabbitmq> <sqlite file> <topic> <group> <logger: hostile | none>
 *
 * Says `consuming` when it does, then each event as a line of JSON; ends with SIGTERM, and says `closed`.
 */
import {
  createConsumer,
  ensureConsumedTable,
  ensureLatestTable,
  latest,
  once,
  onceBatch,
} from '../../consumer-sdk/dist/index.js';
import { fromSqlite } from '../../database/dist/adapters/sqlite.js';
import { BETTER_SQLITE3 } from '../../scripts/better-sqlite3.mjs';

const { default: Database } = await import(BETTER_SQLITE3);

const [rabbitmq, file, topic, group, logging] = process.argv.slice(2);
const database = fromSqlite(() => new Database(file));
await ensureConsumedTable(database);
await ensureLatestTable(database);

const fail = () => {
  throw new Error('users do that', { cause: new Error('the root') });
};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const slowly = async () => pause(50);

/** By the message's data: what its handler does. */
const ACTS = {
  'throws an object without a prototype': () => {
    throw Object.create(null);
  },
  'rejects with an odd message': async () => {
    throw Object.assign(new Error(), { message: { toString: fail } });
  },
  'returns a then that throws': () => Object.defineProperty({}, 'then', { get: fail }),
  'returns a proxy that was revoked': () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  'times out, with listeners that throw': (message) => {
    message.signal.addEventListener('abort', fail);
    message.signal.addEventListener('abort', async () => fail());
    message.signal.onabort = fail;
    return new Promise(() => {});
  },
  'begins once on a copy': (message) => void once(database, { ...message }, slowly),
  'begins latest': (message) => void latest(database, message, { key: message.id, at: 1 }, slowly),
  'begins onceBatch by ids': ({ id, group }) => void onceBatch(database, [{ id, group }], slowly),
  'never looks at a once that failed': async (message) => {
    void once(database, message, fail);
    await pause(50);
  },
};

const logger = (event) => {
  process.stdout.write(`${JSON.stringify({ ...event, error: undefined })}\n`);
  if (event.event === 'deadLettered') fail();
  return Promise.reject(Object.create(null));
};
/** Calls the handler too early, twice, and fails. */
const tracing = {
  span(_, handle) {
    handle();
    handle();
    fail();
  },
};

const consumer = createConsumer({
  rabbitmq,
  ...(logging === 'hostile' ? { logger, tracing } : {}),
});
const act = (message) => ACTS[message.data](message);
const short = { topic, retryDelaysMs: [20], handlerTimeoutMs: 300 };
await consumer.subscribe({ ...short, group }, act);
await consumer.subscribe({ ...short, group: `${group}-ordered`, ordered: { partitions: 1 } }, act);
await consumer.subscribeBatch({ ...short, group: `${group}-batch`, batchMax: 1 }, ([message]) =>
  act(message),
);
await consumer.subscribeEphemeral({ topic, handlerTimeoutMs: 300, onGap: fail }, (message) =>
  act({ ...message, data: message.data, signal: message.signal, group: `${group}-cache` }),
);
process.stdout.write('consuming\n');
process.once('SIGTERM', async () => {
  await consumer.close();
  process.stdout.write('closed\n');
});
