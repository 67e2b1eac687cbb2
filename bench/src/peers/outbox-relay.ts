import { setTimeout as pause } from 'node:timers/promises';
import { connect } from 'amqplib';
import { createPool } from 'mysql2/promise';
import { ensureOutboxTable } from './outbox.js';
import { BATCH_ROWS, relayBatch, relayOneByOne } from './outbox-relays.js';

/** What the relay's process gets, as JSON in its last argument. */
export interface RelaySettings {
  /** URL of the business database, which holds the outbox. */
  database: string;
  rabbitmq: string;
  relay: 'batch' | 'oneByOne';
  /**
   * When it pauses before the next read: after a batch that was not full (what comes in meanwhile
   * is then read at once, which spares the database), or only when it found nothing.
   */
  pauseAfter: 'partBatch' | 'nothing';
}

/** Between two reads that found too little. */
const POLL_MS = 100;

/*
 * The relay as a process: empties the outbox until SIGTERM. Its parent gets a message when it is
 * connected.
 */
const settings: RelaySettings = JSON.parse(process.argv.at(-1) ?? '');
// It does one thing after the other.
const pool = createPool({ uri: settings.database, connectionLimit: 1 });
await ensureOutboxTable(pool);
const connection = await connect(settings.rabbitmq, { noDelay: true });
const channel = await connection.createConfirmChannel();
channel.on('return', ({ properties }) => {
  throw new Error(`nobody is bound for message ${properties.messageId} of the outbox`);
});

const stopping = new AbortController();
process.once('SIGTERM', () => stopping.abort());
let resting = false;
process.on('message', (message) => {
  resting = message === 'rest';
});
// Listening to the parent would keep this process from ending.
process.channel?.unref();
process.send?.('ready');

const relay = settings.relay === 'batch' ? relayBatch : relayOneByOne;
const enough = settings.pauseAfter === 'nothing' ? 1 : BATCH_ROWS;
while (!stopping.signal.aborted) {
  const sent = resting ? 0 : await relay({ pool, channel });
  // Cut short by the signal, which ends the loop as well.
  if (sent < enough) await pause(POLL_MS, undefined, stopping).catch(() => undefined);
}
await connection.close();
await pool.end();
