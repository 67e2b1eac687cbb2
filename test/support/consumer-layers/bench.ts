import { ensureConsumedTable, ensureLatestTable, type OnceMessage } from '@escrowmq/consumer';
import { afterAll, beforeAll, beforeEach } from '@jest/globals';
import { type Engine, type EngineName, startEngine } from '../producer-layers/engine.js';
import { newTransactionId } from '../publish.js';
import type { ConsumerLayer, OpenConsumerLayer } from './layer.js';

const GROUP = 'phone-index';

/** A message that nobody has applied yet. */
export const newMessage = (parts: Partial<OnceMessage> = {}): OnceMessage => ({
  id: `${newTransactionId()}-0`,
  group: GROUP,
  ...parts,
});

/** What a suite has while a test runs: one database, and two instances of a consumer on it. */
export interface Bench<Tx> {
  readonly engine: Engine;
  readonly layer: OpenConsumerLayer<Tx>;
  readonly other: OpenConsumerLayer<Tx>;
  /** Whether `once` has noted the message. */
  isConsumed(message: OnceMessage): Promise<boolean>;
  /** What the database knows of an object that `latest` has seen. */
  stored(): Promise<{ time: number; messageId: string }[]>;
  /** Opens the layer on another address of the same database, closed after the test's suite. */
  openAt(url: string): Promise<OpenConsumerLayer<Tx>>;
}

/** @param isDriver whether the SDK opens the connections itself */
export function useBench<Tx>(
  layer: ConsumerLayer<Tx>,
  name: EngineName,
  isDriver: boolean,
): Bench<Tx> {
  let engine: Engine;
  let instances: OpenConsumerLayer<Tx>[] = [];
  beforeAll(async () => {
    engine = await startEngine(name);
    const first = await layer.open(name, engine.url);
    instances = [first];
    // Layers wait for SQLite's lock with the whole process, so that whoever holds it never ends: there
    // two instances are two processes.
    if (isDriver || engine.dialect !== 'sqlite') {
      instances.push(await layer.open(name, engine.url));
    }
    const { database } = first;
    await ensureConsumedTable(database);
    await ensureLatestTable(database);
    // What exists already is left alone.
    await ensureConsumedTable(database);
    await ensureLatestTable(database);
  });
  afterAll(async () => {
    for (const instance of instances) await instance.close();
    await engine.close();
  });
  beforeEach(async () => {
    for (const table of ['owner', 'account', 'escrow_latest', 'escrow_consumed']) {
      await engine.query(`delete from ${table}`);
    }
  });
  return {
    get engine() {
      return engine;
    },
    get layer() {
      return instances[0]!;
    },
    get other() {
      return instances[1] ?? instances[0]!;
    },
    async isConsumed({ group, id }) {
      const rows = await engine.query(
        `select message_id from escrow_consumed where consumer_group = '${group}' and message_id = '${id}'`,
      );
      return rows.length > 0;
    },
    async stored() {
      const rows = await engine.query('select object_time, message_id from escrow_latest');
      return rows.map((row) => ({
        time: Number(row.object_time),
        messageId: String(row.message_id),
      }));
    },
    async openAt(url) {
      const opened = await layer.open(name, url);
      instances.push(opened);
      return opened;
    },
  };
}

/** What `work` is rejected with. */
export function failure(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    (result) => {
      throw new Error(`it succeeded: ${JSON.stringify(result)}`);
    },
    (error: unknown) => error,
  );
}
