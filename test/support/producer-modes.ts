import { createOutboxRelay, type ProducerOptions } from '@escrowmq/producer';
import { expect } from '@jest/globals';
import type { FakeBroker } from './fake-broker.js';
import { recordingLogger } from './producer-database.js';
import type { SuiteConnections, SuiteDatabase } from './producer-databases.js';
import { until } from './until.js';

type Database = SuiteConnections['database'];

/** Where messages are while their local transaction runs, and how a test sees what became of them. */
export interface ProducerMode {
  name: string;
  options: Pick<ProducerOptions, 'outbox'>;
  /** Whether the broker has been told when a transaction answers. */
  acknowledged: boolean;
  /** The table whose row binds the messages to the local transaction. */
  table: string;
  /** What creates it. */
  cure: string;
  /** What that row says: 'commit', 'rollback', or undefined without a row. */
  row(suite: SuiteDatabase, id: string): Promise<string | undefined>;
  /** Fails unless the broker has been told this decision of a transaction, and no other. */
  expectTold(broker: FakeBroker, id: string, decision: string): Promise<void>;
  /** Resolves when nothing goes on behind a transaction that has answered. */
  settled(suite: SuiteDatabase, broker: FakeBroker, database: Database): Promise<void>;
}

const operationsOf = (broker: FakeBroker, id: string) =>
  broker
    .operations()
    .filter((operation) => operation.id === id)
    .map(({ op }) => op);

const PREPARED: ProducerMode = {
  name: 'prepared at the broker',
  options: {},
  acknowledged: true,
  table: 'escrow_barrier',
  cure: 'ensureBarrierTable',
  row: (suite, id) => suite.barrier(id),
  async expectTold(broker, id, decision) {
    expect(operationsOf(broker, id)).toEqual(['prepare', decision]);
  },
  settled: async () => undefined,
};

export const OUTBOX: ProducerMode = {
  name: 'in the outbox',
  options: { outbox: true },
  acknowledged: false,
  table: 'escrow_outbox',
  cure: 'ensureOutboxTable',
  async row(suite, id) {
    const state = await suite.outbox(id);
    if (state === undefined) return undefined;
    return state === 'void' ? 'rollback' : 'commit';
  },
  async expectTold(broker, id, decision) {
    if (decision === 'commit') {
      await until('it is sent', () => operationsOf(broker, id).length > 0);
    }
    expect(operationsOf(broker, id)).toEqual(decision === 'commit' ? ['send'] : []);
  },
  async settled(suite, broker, database) {
    // What the process itself has no time to send, or no connection to mark, is left to a relay.
    const relay = createOutboxRelay({
      brokers: [broker.address],
      producerGroup: 'accounts',
      database,
      logger: recordingLogger().logger,
    });
    try {
      await until('everything is marked', async () => {
        const unsent = "select 1 as one from escrow_outbox where state = 'unsent' limit 1";
        if ((await suite.observe(unsent)).length === 0) return true;
        await relay.runOnce();
        return false;
      });
    } finally {
      await relay.close();
    }
  },
};

export const MODES = [PREPARED, OUTBOX];
