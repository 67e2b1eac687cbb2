import { createCheckHandler, type SigningSecretSource } from '@escrowmq/producer';
import { afterEach, expect, jest, test } from '@jest/globals';
import { newSigningSecret, signatureHeaders } from '../../broker/src/callback/signature.js';
import { CHECK } from '../../producer-sdk/src/checks/callback-handler.js';
import { createSecrets, SECRETS_KEPT_MS } from '../../producer-sdk/src/checks/check-signature.js';
import { recordingLogger } from '../support/producer-database.js';

const OLD = newSigningSecret();
const NEW = newSigningSecret();
const { logger, records } = recordingLogger();
afterEach(() => {
  records.length = 0;
});

const BODY = JSON.stringify({
  id: '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f',
  producerGroup: 'accounts',
  checkContext: 'nobody knows this database',
  businessKeys: [],
  preparedAt: Date.now(),
  attempt: 1,
});

/** The status of a check that the broker signed with these secrets; 200 is a verified one. */
async function statusOf(signingSecret: SigningSecretSource, signedWith: string[]): Promise<number> {
  const check = createCheckHandler({ signingSecret, databases: {}, answerTimeoutMs: 100, logger });
  const headers = signatureHeaders({ id: 'check_1', at: new Date(), body: BODY }, signedWith);
  return (await check(headers, BODY)).status;
}

test.each<[string, string[], [string | string[], number][]]>([
  [
    'before it, signed with the old one',
    [OLD],
    [
      [OLD, 200],
      [[OLD, NEW], 200],
      [NEW, 401],
    ],
  ],
  [
    'during its day, signed with both',
    [NEW, OLD],
    [
      [OLD, 200],
      [[OLD, NEW], 200],
      [NEW, 200],
    ],
  ],
  [
    'after it, signed with the new one',
    [NEW],
    [
      [OLD, 401],
      [[OLD, NEW], 200],
      [NEW, 200],
    ],
  ],
])('a rotation: %s', async (_, signedWith, cases) => {
  for (const [known, status] of cases) {
    expect([known, await statusOf(known, signedWith)]).toEqual([known, status]);
    expect(await statusOf(() => known, signedWith)).toBe(status);
    expect(await statusOf(async () => known, signedWith)).toBe(status);
  }
});

test('a secret that changes at its source is taken over without a restart', async () => {
  jest.useFakeTimers({ now: Date.now() });
  try {
    let stored = OLD;
    const check = createCheckHandler({ signingSecret: () => stored, databases: {}, logger });
    const ask = async (signedWith: string[]) => {
      const headers = signatureHeaders({ id: 'check_1', at: new Date(), body: BODY }, signedWith);
      return (await check(headers, BODY)).status;
    };
    expect(await ask([OLD])).toBe(200);
    stored = NEW;
    expect(await ask([NEW, OLD])).toBe(200);
    expect(await ask([NEW])).toBe(401);
    jest.advanceTimersByTime(SECRETS_KEPT_MS);
    expect(await ask([NEW, OLD])).toBe(200);
    expect(await ask([NEW])).toBe(200);
    expect(await ask([OLD])).toBe(401);
  } finally {
    jest.useRealTimers();
  }
});

test('a source is asked once in a while, however many checks come, and after a failure at once', async () => {
  let now = 0;
  let asked = 0;
  let stored: () => Promise<string> = async () => OLD;
  const secrets = createSecrets(
    () => {
      asked += 1;
      return stored();
    },
    CHECK,
    () => now,
  ).now;
  await Promise.all(Array.from({ length: 100 }, secrets));
  now = SECRETS_KEPT_MS - 1;
  await secrets();
  expect(asked).toBe(1);
  now = SECRETS_KEPT_MS;
  stored = () => Promise.reject(new Error('down'));
  const failed = await Promise.allSettled([secrets(), secrets()]);
  expect(failed.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect(asked).toBe(2);
  stored = async () => NEW;
  expect(await secrets()).toHaveLength(1);
  expect(asked).toBe(3);
});

test.each<[string, SigningSecretSource]>([
  ['throws', () => Promise.reject(new Error('the vault is sealed'))],
  ['gives nothing', () => []],
  ['gives what is no secret', () => 'whsec_%%%'],
  ['does not end', () => new Promise(() => {})],
])(
  'while the source of secrets %s, no check is answered, and the log says why',
  async (_, source) => {
    expect(await statusOf(source, [OLD])).toBe(500);
    expect(records).toMatchObject([
      { level: 'error', fields: { error: { code: 'CHECK_NOT_ANSWERED' } } },
    ]);
    expect(records[0]?.fields.error).toHaveProperty('cause');
  },
);

test('what a source of secrets said when it failed is not told to whoever asks', async () => {
  const signingSecret = () => Promise.reject(new Error(`cannot read ${OLD}`));
  const check = createCheckHandler({ signingSecret, databases: {}, logger });
  expect((await check({}, BODY)).body).not.toContain(OLD);
});
