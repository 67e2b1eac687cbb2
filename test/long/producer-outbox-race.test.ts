import { createOutboxRelay, createProducer } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import { startFakeBroker } from '../support/fake-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { MARIADB, POSTGRES, SQLITE } from '../support/producer-databases.js';
import { startOutboxDatabase } from '../support/producer-outbox.js';
import { until } from '../support/until.js';

const TRANSACTIONS = 1_000;
const CONCURRENT = 12;
const RELAYS = 3;
/** What the databases say to one of two who want the same rows. */
const CONTENTION = /deadlock|database is locked/i;
/** SQLite keeps a busy machine from reading answers for longer than a process tries by itself. */
const LEFT_TO_A_RELAY = /no broker address gave an answer within 2000 ms/;

test.each([MARIADB, POSTGRES, SQLITE])(
  'with relays beside the process and no lease that holds, exactly what committed is sent on $name',
  async (kind) => {
    const suite = await startOutboxDatabase(kind);
    const broker = await startFakeBroker();
    const { logger, records } = recordingLogger();
    const settings = { brokers: [broker.address], producerGroup: 'accounts', logger };
    const producer = createProducer({ ...settings, outbox: true, connectionTimeoutMs: 20_000 });
    const relays = Array.from({ length: RELAYS }, () =>
      createOutboxRelay({ ...settings, database: suite.connect().database, pollMs: 1 }),
    );
    try {
      for (const relay of relays) relay.start();
      let running = CONCURRENT;
      const endLeases = async () => {
        while (running > 0) {
          // It takes the rows as they come, and so may wait in a circle with who marks them in order.
          await suite.makeDue().catch((error) => expect(String(error)).toMatch(CONTENTION));
          await new Promise(setImmediate);
        }
      };
      const { database } = suite.connect({ connections: CONCURRENT });
      const committed: string[] = [];
      let next = 0;
      const work = async () => {
        while (next < TRANSACTIONS) {
          next += 1;
          const account = next;
          const mine = new Error('mine');
          const message = { topic: 'user', data: account };
          await producer
            .transaction(database, message, async (tx, { id }) => {
              await suite.send(tx, `insert into account (id) values (${account})`);
              if (account % 7 === 0) throw mine;
              committed.push(id);
            })
            .catch((error: unknown) => expect(error).toBe(mine));
        }
        running -= 1;
      };
      await Promise.all([...Array.from({ length: CONCURRENT }, work), endLeases()]);
      await until('everything is marked', async () =>
        (await suite.rows()).every(({ state }) => state === 'sent'),
      );
      const expected = committed.sort();
      expect((await suite.rows()).map(({ id }) => id).sort()).toEqual(expected);
      expect([...broker.transactions.keys()].sort()).toEqual(expected);
      expect(await suite.accounts()).toHaveLength(expected.length);
      const said = records.map(({ fields }) => String(fields.error));
      const expectedly = (error: string) => CONTENTION.test(error) || LEFT_TO_A_RELAY.test(error);
      expect(said.filter((error) => !expectedly(error))).toEqual([]);
    } finally {
      for (const relay of relays) await relay.close();
      await producer.close();
      await broker.close();
      await suite.close();
    }
  },
);
