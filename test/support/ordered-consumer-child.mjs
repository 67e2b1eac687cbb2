/*
 * An instance of an ordered consumer group, to be killed: see consumer-ordered-kill.test.ts. Writes
 * `<begin or end> <monotonic ns> <key> <sequence>` for each handler. What is written to a pipe is
 * there, whatever becomes of the process. The clock is the machine's, the same for all processes.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { createConsumer } from '@escrowmq/consumer';

const [rabbitmq, options] = process.argv.slice(2);
const HANDLER_MS_MAX = 20;

function tell(what, { orderingKey, sequence }) {
  process.stdout.write(`${what} ${process.hrtime.bigint()} ${orderingKey} ${sequence}\n`);
}

const consumer = createConsumer({ rabbitmq });
await consumer.subscribe(JSON.parse(options), async (message) => {
  tell('begin', message);
  await pause(Math.random() * HANDLER_MS_MAX);
  // Now and then a handler fails, and its message is tried again in its place.
  if (message.attempts === 0 && Math.random() < 0.05) {
    tell('end', message);
    throw new Error('not yet');
  }
  tell('end', message);
});
process.stdout.write('consuming\n');
// Ends with its parent, however that ends.
process.stdin.on('end', () => process.exit()).resume();
