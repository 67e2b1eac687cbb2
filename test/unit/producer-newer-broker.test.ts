import { createProducer, type Producer } from '@escrowmq/producer';
import { CLIENT_HEADER, EscrowError, LIMITS, toProblem, VERSION } from '@escrowmq/protocol';
import { afterEach, describe, expect, test } from '@jest/globals';
import { readReceipts } from '../../broker/src/rabbit/read-receipts.js';
import {
  decided,
  type FakeBroker,
  problemAnswer,
  type Scripted,
  startFakeBroker,
} from '../support/fake-broker.js';

/* What a newer broker or consumer says more than this version knows, and what that leaves unharmed. */

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const OTHER = '0198f3c2-7a10-7cc3-98c4-dc0c0c073990';

async function against(...script: Scripted[]): Promise<{ fake: FakeBroker; producer: Producer }> {
  const fake = await startFakeBroker(script);
  const producer = createProducer({ brokers: [fake.address], producerGroup: 'accounts' });
  open.push(producer, fake);
  return { fake, producer };
}

const batch = (...results: unknown[]): Scripted => ({
  status: 200,
  body: JSON.stringify({ results }),
});
const problem = (changes: object) => ({
  ...toProblem(new EscrowError('STATE_CONFLICT', 'the transaction is closed')),
  ...changes,
});

test('every call names the SDK and its version', async () => {
  const { fake, producer } = await against();
  await producer.prepare({ messages: [{ topic: 'user', data: 1 }] });
  expect(fake.requests[0]!.headers[CLIENT_HEADER]).toBe(`escrowmq-producer/${VERSION}`);
});

describe('a batch', () => {
  test('with an unknown code refuses that operation, by its status, and no other', async () => {
    const closed = problem({ code: 'TRANSACTION_CLOSED', status: 410, retryable: false });
    const { fake, producer } = await against(
      batch({ status: 410, problem: closed }, { status: 200, answer: decided(OTHER, 'commit') }),
    );
    const refused = expect(producer.commit(ID)).rejects.toMatchObject({
      code: 'TRANSACTION_CLOSED',
      status: 410,
      retryable: false,
    });
    expect(await producer.commit(OTHER)).toMatchObject({ state: 'committed' });
    await refused;
    expect(fake.requests).toHaveLength(1);
  });

  test('with an unknown code that may be retried sends that operation again', async () => {
    const quota = problem({ code: 'QUOTA_USED', status: 429, retryable: true });
    const { fake, producer } = await against(
      batch({ status: 429, problem: quota }, { status: 200, answer: decided(OTHER, 'commit') }),
    );
    fake.transactions.set(ID, decided(ID, 'commit'));
    await Promise.all([producer.commit(ID), producer.commit(OTHER)]);
    expect(fake.operations().map(({ id }) => id)).toEqual([ID, OTHER, ID]);
  });

  test('with an unknown state is read as it is', async () => {
    const answer = { ...decided(ID, 'commit'), state: 'confirming', cell: 'eu-1' };
    const { producer } = await against(batch({ status: 200, answer }));
    expect(await producer.commit(ID)).toMatchObject({ id: ID, state: 'confirming' });
  });

  test.each([
    ['null', null],
    ['a text', 'done'],
    ['nothing', { status: 200 }],
    ['a problem without a code', { status: 409, problem: { ...problem({}), code: undefined } }],
    ['the answer to another id', { status: 200, answer: decided(OTHER, 'commit') }],
  ])(
    'with %s in the place of a result sends that operation again, and no other',
    async (_, odd) => {
      const { fake, producer } = await against(
        batch(odd, { status: 200, answer: decided(OTHER, 'commit') }),
      );
      fake.transactions.set(ID, decided(ID, 'commit'));
      await Promise.all([producer.commit(ID), producer.commit(OTHER)]);
      expect(fake.operations().map(({ id }) => id)).toEqual([ID, OTHER, ID]);
    },
  );
});

test('a single call that is refused with an unknown code has that code', async () => {
  const closed = problem({ code: 'TRANSACTION_CLOSED', status: 410, retryable: false });
  const { fake, producer } = await against({ status: 410, body: JSON.stringify(closed) });
  await expect(producer.cancel(ID, { reason: 'test' })).rejects.toMatchObject({
    code: 'TRANSACTION_CLOSED',
    status: 410,
  });
  expect(fake.requests).toHaveLength(1);
});

test('a registration whose answer says more of the check policy is read', async () => {
  const body = { producerGroup: 'accounts', checkUrls: [], checkPolicy: { quiet: true }, more: 1 };
  const { producer } = await against({ status: 200, body: JSON.stringify(body) });
  expect(await producer.registerGroup({ checkUrls: [] })).toMatchObject({ checkUrls: [] });
});

test('an older broker that does not know a field is said to be older', async () => {
  const unknown = new EscrowError('UNKNOWN_FIELD', 'the request is not valid: unknown key "x"');
  const { producer } = await against(batch({ status: 400, problem: toProblem(unknown) }), {
    ...problemAnswer(unknown),
  });
  const older = {
    code: 'UNKNOWN_FIELD',
    message: expect.stringMatching(/^the broker is older than this SDK.*unknown key "x"$/),
  };
  await expect(producer.commit(ID)).rejects.toMatchObject(older);
  await expect(producer.cancel(ID, { reason: 'test' })).rejects.toMatchObject(older);
});

describe('receipts', () => {
  const receipt = { messageId: `${ID}-0`, consumerGroup: 'stock', kind: 'consumed' };
  const read = (value: unknown) => readReceipts(Buffer.from(JSON.stringify(value)));

  test('of an unknown kind are told, and their neighbours count', () => {
    const { receipts, problems } = read({
      receipts: [receipt, { ...receipt, kind: 'skipped' }, { ...receipt, later: true }],
    });
    expect(receipts).toEqual([receipt, receipt]);
    expect(problems).toEqual(['receipt 1 can not be read: kind: invalid_value']);
  });

  test.each([
    [{}],
    [{ receipts: [] }],
    [{ receipts: Array(LIMITS.receiptsPerMessageMax + 1).fill(receipt) }],
  ])('what is no batch of them is told as a whole', (value) => {
    expect(read(value)).toEqual({
      receipts: [],
      problems: [expect.stringMatching(/^it is no batch of receipts: /)],
    });
  });
});
