import {
  createOutboxRelay,
  createProducer,
  type OutboxRelay,
  type OutboxRelayOptions,
  type Producer,
  type ProducerOptions,
  purgeOutbox,
} from '@escrowmq/producer';
import { EscrowError } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type FakeBroker, problemAnswer, startFakeBroker } from '../support/fake-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { MARIADB, POSTGRES, SQLITE, type SuiteConnections } from '../support/producer-databases.js';
import { startOutboxDatabase } from '../support/producer-outbox.js';
import { until } from '../support/until.js';

const message = { topic: 'user', routingKey: 'registered', data: { userId: 7, name: 'Žofie ✓' } };
const HOUR_MS = 60 * 60 * 1000;
/** Nobody listens there; closing does not wait for what is tried in the background. */
const WITHOUT_BROKER = { brokers: ['http://127.0.0.1:1'], closeTimeoutMs: 1 };

describe.each([MARIADB, POSTGRES, SQLITE])('an outbox on $name', (kind) => {
  const { logger, records } = recordingLogger();
  let suite: Awaited<ReturnType<typeof startOutboxDatabase>>;
  let connections: SuiteConnections;
  let broker: FakeBroker;
  let producer: Producer;
  let opened: { close(): Promise<void> }[];

  beforeAll(async () => {
    suite = await startOutboxDatabase(kind);
    connections = suite.connect();
  });
  afterAll(() => suite.close());

  beforeEach(async () => {
    opened = [];
    records.length = 0;
    await suite.observe('delete from account');
    await suite.observe('delete from escrow_outbox');
    broker = await startFakeBroker();
    producer = producerOf();
  });
  afterEach(async () => {
    for (const each of opened.reverse()) await each.close();
    await broker.close();
  });

  function producerOf(options: Partial<ProducerOptions> = {}): Producer {
    const made = createProducer({
      brokers: [broker.address],
      producerGroup: 'accounts',
      outbox: true,
      logger,
      settleTimeoutMs: 1_500,
      ...options,
    });
    opened.push(made);
    return made;
  }

  function relayOf(options: Partial<OutboxRelayOptions> = {}): OutboxRelay {
    const made = createOutboxRelay({
      brokers: [broker.address],
      producerGroup: 'accounts',
      logger,
      database: connections.database,
      ...options,
    } as OutboxRelayOptions);
    opened.push(made);
    return made;
  }

  const insert = (tx: unknown, id: number) =>
    suite.send(tx, `insert into account (id) values (${id})`);
  const register = (by: Producer, account: number) =>
    by.transaction(connections.database, message, (tx) => insert(tx, account));
  const states = async () => (await suite.rows()).map(({ state }) => state);
  const isSent = async () => (await states()).every((state) => state === 'sent');

  /** A producer whose broker is not there, and `count` rows that it left in the outbox. */
  async function leave(count: number): Promise<void> {
    const alone = producerOf(WITHOUT_BROKER);
    for (let account = 1; account <= count; account += 1) await register(alone, account);
    await suite.makeDue();
  }

  test('a transaction is sent as soon as it has committed, without a relay', async () => {
    const result = await producer.transaction(
      connections.database,
      [message, { ...message, routingKey: 'renamed' }],
      async (tx) => {
        await insert(tx, 1);
        expect(broker.requests).toEqual([]);
        return 'registered';
      },
      { businessKeys: ['phone:1'], expects: ['index'], checkAfterMs: 500, database: 'shard-3' },
    );
    const [row] = await suite.rows();
    expect(result).toEqual({
      outcome: 'committed',
      id: row?.id,
      value: 'registered',
      acknowledged: false,
    });
    await until('it is marked', isSent);
    const operations = broker.operations();
    expect(operations).toHaveLength(1);
    expect(operations[0]).toMatchObject({
      op: 'send',
      id: row?.id,
      producerGroup: 'accounts',
      businessKeys: ['phone:1'],
      expects: ['index'],
      messages: [message, { ...message, routingKey: 'renamed' }],
    });
    expect(operations[0]).not.toHaveProperty('checkAfterMs');
    expect(operations[0]).not.toHaveProperty('checkContext');
    expect(await suite.accounts()).toEqual([1]);
    expect(records).toEqual([]);
  });

  test('an error of the callback comes back unchanged, and nothing is left behind', async () => {
    const mine = new Error('phone number taken');
    const failed = producer.transaction(connections.database, message, async (tx) => {
      await insert(tx, 1);
      throw mine;
    });
    await expect(failed).rejects.toBe(mine);
    expect(await suite.rows()).toEqual([]);
    expect(await suite.accounts()).toEqual([]);
    expect(broker.requests).toEqual([]);
  });

  test('without a broker transactions commit, and a relay sends them when it is back', async () => {
    await leave(20);
    expect(await states()).toEqual(Array(20).fill('unsent'));
    const relay = relayOf();
    expect(await relay.stats()).toMatchObject({ pending: 20, parked: 0, sent: 0 });
    expect(await relay.runOnce()).toEqual({ sent: 20, parked: 0, putOff: 0 });
    expect(await states()).toEqual(Array(20).fill('sent'));
    expect(broker.requests).toHaveLength(1);
    expect(new Set(broker.operations().map(({ id }) => id)).size).toBe(20);
    expect(await relay.stats()).toEqual({ pending: 0, oldestMs: 0, parked: 0, sent: 20 });
    expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
  });

  test('a started relay goes on by itself, and has sent everything when the broker is back', async () => {
    await leave(5);
    const dead = broker;
    const { address } = dead;
    await dead.close();
    // As long as it asks a broker that is away, each time.
    const relay = relayOf({ pollMs: 10, requestTimeoutMs: 1_000 } as Partial<OutboxRelayOptions>);
    relay.start();
    await until('it has failed', async () => (await relay.stats()).failure !== undefined);
    expect(records.filter(({ level }) => level === 'error')).toHaveLength(1);
    broker = await startFakeBroker([], Number(new URL(address).port));
    await until('they are due and sent', isSent);
    expect(await relay.stats()).toEqual({ pending: 0, oldestMs: 0, parked: 0, sent: 5 });
  });

  test('a row is left to the process that wrote it at first', async () => {
    const alone = producerOf(WITHOUT_BROKER);
    await register(alone, 1);
    expect(await relayOf().runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
    await suite.makeDue();
    expect(await relayOf().runOnce()).toMatchObject({ sent: 1 });
  });

  test('what is of another producer group is left alone', async () => {
    await leave(1);
    const other = relayOf({ producerGroup: 'others' } as Partial<OutboxRelayOptions>);
    expect(await other.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
    expect(await other.stats()).toMatchObject({ pending: 0 });
    expect(await states()).toEqual(['unsent']);
  });

  test('a relay in the name of a producer sends like it', async () => {
    await leave(1);
    const relay = createOutboxRelay({ producer, database: connections.database });
    expect(await relay.runOnce()).toMatchObject({ sent: 1 });
    await relay.close();
    await producer.send({ messages: [message] });
  });

  test('data supplied in the callback are in the row, and so in the message', async () => {
    await producer.transaction(
      connections.database,
      [{ topic: 'user', dataAtCommit: true }, message],
      async (tx, { supplyData }) => {
        await insert(tx, 1);
        supplyData({ userId: 1 });
      },
    );
    await until('it is marked', isSent);
    expect(broker.operations()).toHaveLength(1);
    expect(broker.operations()[0]).toMatchObject({
      op: 'send',
      messages: [{ topic: 'user', data: { userId: 1 } }, message],
    });
    const [row] = await suite.rows();
    expect(JSON.parse(String(row?.operation)).messages[0]).not.toHaveProperty('dataAtCommit');
  });

  test('messages that no broker could take are refused before anything is written', async () => {
    let isCalled = false;
    const failed = producer.transaction(
      connections.database,
      { topic: 'user', data: 'x'.repeat(2 * 1024 * 1024) },
      async () => {
        isCalled = true;
      },
    );
    await expect(failed).rejects.toMatchObject({ code: 'BODY_TOO_LARGE' });
    expect(isCalled).toBe(false);
  });

  test('a large message with every kind of character is sent as it was', async () => {
    const data = `'";\\ \u0000\u001f ?? :name $1 ✓ ${'🙂'.repeat(50_000)}`;
    await producer.transaction(connections.database, { topic: 'user', data }, (tx) =>
      insert(tx, 1),
    );
    await until('it is marked', isSent);
    expect(broker.operations()[0]).toMatchObject({ messages: [{ data }] });
    const [row] = await suite.rows();
    expect(JSON.parse(String(row?.operation)).messages[0].data).toBe(data);
  });

  test('what the broker refuses for good is parked, the rest of its batch is sent', async () => {
    await leave(3);
    const [, refused] = await suite.rows();
    const error = new EscrowError('ID_TIME_OUT_OF_RANGE', 'the id is over 29 days old');
    broker.refuse = ({ id }) => (id === refused?.id ? error : undefined);
    const relay = relayOf();
    expect(await relay.runOnce()).toEqual({ sent: 2, parked: 1, putOff: 0 });
    expect(await states()).toEqual(['sent', 'parked', 'sent']);
    expect((await suite.rows())[1]?.cause).toBe('ID_TIME_OUT_OF_RANGE: the id is over 29 days old');
    // The process that reached no broker may still say so.
    expect(records.filter(({ level }) => level === 'error')).toMatchObject([
      { fields: { transactionId: refused?.id, error: { code: error.code } } },
    ]);
    expect(await relay.stats()).toMatchObject({ pending: 0, parked: 1 });
    expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });

    broker.refuse = () => undefined;
    expect(await relay.retryParked()).toBe(1);
    expect(await relay.runOnce()).toEqual({ sent: 1, parked: 0, putOff: 0 });
    expect(await states()).toEqual(['sent', 'sent', 'sent']);
  });

  test.each(['UNAUTHENTICATED', 'FORBIDDEN', 'UNKNOWN_PRODUCER_GROUP'] as const)(
    'a relay that the broker refuses with %s parks nothing and says so',
    async (code) => {
      await leave(2);
      const error = new EscrowError(code, 'not you');
      if (code === 'UNAUTHENTICATED') broker.script.push(problemAnswer(error));
      else broker.refuse = () => error;
      const relay = relayOf();
      expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 2 });
      expect(await relay.stats()).toMatchObject({ pending: 2, failure: { code } });
      broker.refuse = () => undefined;
      await suite.makeDue();
      expect(await relay.runOnce()).toMatchObject({ sent: 2 });
      expect(await relay.stats()).not.toHaveProperty('failure');
    },
  );

  test('a row that makes the broker refuse the whole body is found, and parked alone', async () => {
    await leave(5);
    const [, , poison] = await suite.rows();
    const error = new EscrowError('INVALID_JSON', 'the body is not valid JSON');
    broker.refuseBody = (body) => (body.includes(String(poison?.id)) ? error : undefined);
    expect(await relayOf().runOnce()).toEqual({ sent: 4, parked: 1, putOff: 0 });
    expect(await states()).toEqual(['sent', 'sent', 'parked', 'sent', 'sent']);
  });

  test('a row that somebody wrote by hand is parked before it is sent', async () => {
    await leave(2);
    const [first] = await suite.rows();
    await suite.set(String(first?.id), "operation = 'not JSON'");
    expect(await relayOf().runOnce()).toEqual({ sent: 1, parked: 1, putOff: 0 });
    expect(await states()).toEqual(['parked', 'sent']);
  });

  test('what a busy broker puts off is due again when it wants it', async () => {
    await leave(2);
    const [first] = await suite.rows();
    const busy = new EscrowError('BROKER_BUSY', 'later', { details: { retryAfterSeconds: 3600 } });
    broker.refuse = ({ id }) => (id === first?.id ? busy : undefined);
    const relay = relayOf();
    expect(await relay.runOnce()).toEqual({ sent: 1, parked: 0, putOff: 1 });
    broker.refuse = () => undefined;
    expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
    await suite.makeDue();
    expect(await relay.runOnce()).toMatchObject({ sent: 1 });
  });

  test('a relay that could not mark what it sent sends it again under the same id', async () => {
    await leave(3);
    let sessions = 0;
    const flaky = {
      ...connections.database,
      session: ((work, limits) => {
        sessions += 1;
        if (sessions > 1) return Promise.reject(new Error('the process is gone'));
        return connections.database.session(work, limits);
      }) as typeof connections.database.session,
    };
    await expect(relayOf({ database: flaky }).runOnce()).rejects.toThrow('the process is gone');
    const other = relayOf();
    // Its lease holds.
    expect(await other.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
    await suite.makeDue();
    expect(await other.runOnce()).toEqual({ sent: 3, parked: 0, putOff: 0 });
    const ids = broker.operations().map(({ id }) => id);
    expect(ids).toHaveLength(6);
    expect(new Set(ids).size).toBe(3);
  });

  test('a batch is bounded by what the broker takes at once', async () => {
    const alone = producerOf(WITHOUT_BROKER);
    const large = { topic: 'user', data: 'x'.repeat(1_000_000) };
    for (let account = 1; account <= 10; account += 1) {
      await alone.transaction(connections.database, large, (tx) => insert(tx, account));
    }
    await suite.makeDue();
    const relay = relayOf({ requestTimeoutMs: 20_000 } as Partial<OutboxRelayOptions>);
    expect(await relay.runOnce()).toMatchObject({ sent: 8 });
    expect(await relay.runOnce()).toMatchObject({ sent: 2 });
  });

  test('enlisted messages are sent after settle, and by a relay without it', async () => {
    await connections.database.transaction(
      async (open) => {
        const enlisted = await producer.enlist(
          { ...open, kind: 'transaction', dialect: kind.dialect, layer: kind.name },
          message,
        );
        await insert(open.tx, 1);
        expect((await enlisted.settle(suite.connect().database)).outcome).toBe('unknown');
        await enlisted.verify();
        opened.push({
          async close() {
            expect((await enlisted.settle(connections.database)).outcome).toBe('committed');
          },
        });
      },
      { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 },
    );
    expect(broker.requests).toEqual([]);
    await opened.pop()?.close();
    await until('it is marked', isSent);
    expect(broker.operations()).toMatchObject([{ op: 'send' }]);
  });

  test('a transaction whose outcome was asked for first can not commit any more', async () => {
    let settled: unknown;
    const limits = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };
    const rolledBack = connections.database.transaction(async (open) => {
      const enlisted = await producer.enlist(
        { ...open, kind: 'transaction', dialect: kind.dialect, layer: kind.name },
        message,
      );
      settled = () => enlisted.settle(connections.database);
      throw new Error('mine');
    }, limits);
    await expect(rolledBack).rejects.toThrow('mine');
    const settle = settled as () => Promise<{ outcome: string }>;
    expect((await settle()).outcome).toBe('rolledBack');
    expect((await settle()).outcome).toBe('rolledBack');
    expect(await states()).toEqual(['void']);
    expect(broker.requests).toEqual([]);
  });

  test('a transaction with a topic that is not in the outbox is prepared as a whole', async () => {
    const mixed = producerOf({ outbox: { topics: ['user'] } });
    const both = [message, { topic: 'order', data: 1 }];
    await mixed.transaction(connections.database, both, (tx) => insert(tx, 1));
    expect(broker.operations().map(({ op }) => op)).toEqual(['prepare', 'commit']);
    expect(await suite.rows()).toEqual([]);
    await mixed.transaction(connections.database, message, (tx) => insert(tx, 2));
    await until('it is marked', async () => (await states())[0] === 'sent');
    expect(broker.operations().map(({ op }) => op)).toEqual(['prepare', 'commit', 'send']);
  });

  test('a missing outbox table is named, with the cure', async () => {
    await suite.observe('alter table escrow_outbox rename to hidden');
    try {
      const missing = {
        code: 'INVALID_CONFIGURATION',
        message: expect.stringContaining('ensureOutboxTable'),
      };
      await expect(register(producer, 1)).rejects.toMatchObject(missing);
      await expect(relayOf().runOnce()).rejects.toMatchObject(missing);
    } finally {
      await suite.observe('alter table hidden rename to escrow_outbox');
    }
  });

  test('a purge takes old rows that are sent or void, and nothing else', async () => {
    await leave(4);
    const [sent, parked, unsent, young] = await suite.rows();
    const age = (id: string | undefined, state: string, ageMs: number) =>
      suite.set(String(id), `state = '${state}', due_at = ${Date.now() - ageMs}`);
    await age(sent?.id, 'sent', 25 * HOUR_MS);
    await age(parked?.id, 'parked', 9_000 * HOUR_MS);
    await age(unsent?.id, 'unsent', 9_000 * HOUR_MS);
    await age(young?.id, 'sent', 23 * HOUR_MS);
    expect(await purgeOutbox(connections.database, 24 * HOUR_MS)).toBe(1);
    expect((await suite.rows()).map(({ id }) => id)).toEqual([parked?.id, unsent?.id, young?.id]);
    await age(young?.id, 'void', 25 * HOUR_MS);
    expect(await purgeOutbox(connections.database, 24 * HOUR_MS)).toBe(1);
    await expect(purgeOutbox(connections.database, 24 * HOUR_MS - 1)).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
    });
  });
});
