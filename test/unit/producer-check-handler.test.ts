import { type CheckHandlerOptions, createCheckHandler } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import type { Pool } from 'mysql2/promise';
import { askWith, recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const OTHER_SECRET = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;
const MINUTE_MS = 60_000;

/** A pool that counts how often it was asked, and is always down. */
function downPool(): { pool: Pool; asked(): number } {
  let asked = 0;
  const getConnection = async () => {
    asked += 1;
    throw new Error('down');
  };
  return { pool: { getConnection } as unknown as Pool, asked: () => asked };
}

function handlerOf(options: Partial<CheckHandlerOptions> = {}) {
  const { logger, records } = recordingLogger();
  const down = downPool();
  const handler = createCheckHandler({
    signingSecret: SIGNING_SECRET,
    database: down.pool,
    logger,
    ...options,
  });
  return { handler, records, asked: down.asked };
}

test('a signed check reaches the database; one that is down is answered 200 unknown, with a reason', async () => {
  const { handler, records, asked } = handlerOf();
  const answer = await askWith(handler, ID);
  expect(answer).toMatchObject({ status: 200, headers: { 'content-type': 'application/json' } });
  expect(JSON.parse(answer.body)).toEqual({ id: ID, decision: 'unknown' });
  expect(asked()).toBe(1);
  expect(records).toMatchObject([
    {
      level: 'warn',
      fields: {
        transactionId: ID,
        reason: expect.stringMatching(/refused or did not answer: .*down/),
      },
    },
  ]);
});

test('a check that is not signed as it must be is 401 and reaches no database', async () => {
  const { handler, asked } = handlerOf();
  const body = JSON.stringify({ id: ID });
  const answers = [
    await handler({}, body),
    await handler({ 'webhook-id': 'a', 'webhook-timestamp': '1', 'webhook-signature': 'v1' }, body),
    await handler(
      { 'webhook-id': ['a', 'b'], 'webhook-timestamp': '1', 'webhook-signature': 'v1,AA==' },
      body,
    ),
    await askWith(handler, ID, { secret: OTHER_SECRET }),
    await askWith(handler, ID, { signedAt: new Date(Date.now() - 6 * MINUTE_MS) }),
    await askWith(handler, ID, { signedAt: new Date(Date.now() + 6 * MINUTE_MS) }),
    await askWith((headers, raw) => handler(headers, `${raw} `), ID),
  ];
  for (const { status, headers, body: problem } of answers) {
    expect(status).toBe(401);
    expect(headers['content-type']).toBe('application/problem+json');
    expect(JSON.parse(problem).code).toBe('INVALID_SIGNATURE');
  }
  expect(asked()).toBe(0);
});

test('N13: a wrong secret is said by the producer, with what to look at, and bounded', async () => {
  const { handler, records } = handlerOf({ signingSecret: OTHER_SECRET });
  for (let call = 0; call < 3; call += 1) {
    expect((await askWith(handler, ID)).status).toBe(401);
  }
  expect(records).toMatchObject([
    {
      level: 'warn',
      message: expect.stringContaining('is signingSecret the one of the group, as registerGroup'),
      fields: { code: 'INVALID_SIGNATURE', count: 1, error: { code: 'INVALID_SIGNATURE' } },
    },
  ]);
});

test('while a secret is rotated, the old and the new one are accepted', async () => {
  const { handler } = handlerOf({ signingSecret: [SIGNING_SECRET, OTHER_SECRET] });
  for (const secret of [SIGNING_SECRET, OTHER_SECRET]) {
    expect((await askWith(handler, ID, { secret })).status).toBe(200);
  }
});

test('a signed body that is no check is 400, one beyond the limit 413', async () => {
  const { handler, asked } = handlerOf();
  expect((await askWith(handler, 'no-uuid')).status).toBe(400);
  expect((await askWith(handler, ID, { check: { preparedAt: 'today' } })).status).toBe(400);
  const large = { check: { businessKeys: Array.from({ length: 400 }, () => 'k'.repeat(128)) } };
  expect((await askWith(handler, ID, large)).status).toBe(413);
  expect(asked()).toBe(0);
});

test('a check of another producer group is refused and decides nothing (F38)', async () => {
  const { handler, asked } = handlerOf({ producerGroup: 'orders' });
  const answer = await askWith(handler, ID);
  expect(answer.status).toBe(404);
  expect(answer.body).toContain('PRODUCER_GROUP_NOT_FOUND');
  expect(asked()).toBe(0);
});

test('the largest check that a broker can send is accepted', async () => {
  const { handler } = handlerOf();
  const check = {
    businessKeys: Array.from({ length: 16 }, (_, n) => `${n}`.padEnd(128, '文')),
    checkContext: '"'.repeat(1024),
    producerGroup: 'g'.repeat(64),
  };
  expect((await askWith(handler, ID, { check })).status).toBe(200);
});

test('options that could not work are refused at once', () => {
  const { pool } = downPool();
  const signingSecret = SIGNING_SECRET;
  const invalid: CheckHandlerOptions[] = [
    { signingSecret: [], database: pool },
    { signingSecret: 'whsec_%%%', database: pool },
    { signingSecret: '', database: pool },
    { signingSecret },
    { signingSecret, database: pool, databases: {} },
    { signingSecret, database: pool, barrierRetentionMs: 1000 },
    { signingSecret, database: pool, answerTimeoutMs: 0 },
  ];
  for (const options of invalid) {
    expect(() => createCheckHandler(options)).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIGURATION' }),
    );
  }
});
