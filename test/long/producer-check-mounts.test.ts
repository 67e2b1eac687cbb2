import http from 'node:http';
import {
  type CheckHandler,
  type CheckResponse,
  createCheckHandler,
  expressCheckHandler,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import {
  BUFFERED,
  type CheckMount,
  CONSUMED,
  type Mounted,
  STREAMING,
  STREAMING_NODE,
} from '../support/check-mounts.js';
import {
  askWith,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';

const OTHER_SECRET = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;
const SIX_MINUTES_MS = 6 * 60_000;
const ANSWER_TIMEOUT_MS = 300;
const BODY_TIMEOUT_MS = 300;
/** What a busy machine may add to either; without a limit the answer would never come. */
const MACHINE_MS_MAX = 10_000;
const JSON_BODY = { 'content-type': 'application/json' };

const { logger, records } = recordingLogger();
let database: ProducerDatabase;
/** Its only connection is held, so that a decision waits for ever. */
let hanging: Pool;
let held: PoolConnection;

beforeAll(async () => {
  database = await startProducerDatabase();
  hanging = database.pool({ connectionLimit: 1 });
  held = await hanging.getConnection();
});
afterAll(async () => {
  held.release();
  await database.close();
});

const open: Mounted[] = [];
let id: string;
beforeEach(() => {
  id = uuidv7();
  records.length = 0;
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((mounted) => mounted.close()));
});

/** The application under test, with a check handler on this database; returns how to call it. */
async function mount({ start }: CheckMount, pool = database.pool()) {
  const check = createCheckHandler({
    signingSecret: SIGNING_SECRET,
    database: pool,
    answerTimeoutMs: ANSWER_TIMEOUT_MS,
    logger,
  });
  const mounted = await start(check, { bodyTimeoutMs: BODY_TIMEOUT_MS, logger });
  open.push(mounted);
  const call =
    (method: string): CheckHandler =>
    (headers, body) =>
      // The body of a GET or DELETE would have no length that a server knows.
      method.startsWith('P')
        ? send(mounted.url, { method, headers: { ...headers, ...JSON_BODY } }, (request) =>
            request.end(body),
          )
        : send(mounted.url, { method, headers }, (request) => request.end());
  return { url: mounted.url, post: call('POST'), call };
}

function send(
  url: string,
  sent: { method: string; headers: http.OutgoingHttpHeaders; agent?: http.Agent },
  write: (request: http.ClientRequest) => void,
): Promise<CheckResponse> {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { agent: false, ...sent }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: {
            'content-type': String(response.headers['content-type']),
            connection: String(response.headers.connection),
          },
          body: Buffer.concat(chunks).toString(),
        }),
      );
    });
    request.on('error', reject);
    write(request);
  });
}

/** What a local transaction leaves behind. */
const writeCommit = (messageData?: unknown) =>
  database.observer.query(
    "insert into escrow_barrier (transaction_id, decision, created_at, data) values (unhex(replace(?, '-', '')), 'commit', utc_timestamp(3), ?)",
    [id, messageData === undefined ? null : JSON.stringify(messageData)],
  );

/** Refused as a problem document with this code, and nothing is decided. */
async function expectRefusal(answer: CheckResponse, status: number, code: string): Promise<void> {
  expect([answer.status, answer.body]).toEqual([status, expect.stringContaining(`"${code}"`)]);
  expect(answer.headers['content-type']).toMatch('application/problem+json');
  expect(await database.barrier(id)).toBeUndefined();
}

describe.each([...STREAMING, ...BUFFERED])('$name', (mountOf) => {
  test('answers a signed check with what the database says', async () => {
    const { post } = await mount(mountOf);
    await writeCommit();
    const answer = await askWith(post, id, { check: { businessKeys: ['phone:漢字'] } });
    expect(answer.status).toBe(200);
    expect(answer.headers['content-type']).toMatch('application/json');
    expect(JSON.parse(answer.body)).toEqual({ id, decision: 'commit' });
    id = uuidv7();
    expect(JSON.parse((await askWith(post, id)).body)).toEqual({ id, decision: 'rollback' });
  });

  test('refuses a check that is forged, altered or replayed after six minutes', async () => {
    const { post } = await mount(mountOf);
    const signedAt = new Date(Date.now() - SIX_MINUTES_MS);
    await expectRefusal(
      await askWith(post, id, { secret: OTHER_SECRET }),
      401,
      'INVALID_SIGNATURE',
    );
    await expectRefusal(await askWith(post, id, { signedAt }), 401, 'INVALID_SIGNATURE');
    const altered = askWith((headers, body) => post(headers, ` ${body}`), id);
    await expectRefusal(await altered, 401, 'INVALID_SIGNATURE');
    await expectRefusal(await post({}, '{}'), 401, 'INVALID_SIGNATURE');
  });

  test('refuses a check that is too large', async () => {
    const { post } = await mount(mountOf);
    const check = { businessKeys: ['k'.repeat(40_000)] };
    await expectRefusal(await askWith(post, id, { check }), 413, 'BODY_TOO_LARGE');
  });

  test('takes nothing but a POST', async () => {
    const { call } = await mount(mountOf);
    for (const method of ['PUT', 'DELETE', 'GET']) {
      expect((await askWith(call(method), id)).status).toBe(404);
    }
    expect(await database.barrier(id)).toBeUndefined();
  });

  test('answers unknown within its limit while the database hangs', async () => {
    const { post } = await mount(mountOf, hanging);
    const startedAt = performance.now();
    const answer = await askWith(post, id);
    expect(performance.now() - startedAt).toBeLessThan(ANSWER_TIMEOUT_MS + MACHINE_MS_MAX);
    expect([answer.status, JSON.parse(answer.body)]).toEqual([200, { id, decision: 'unknown' }]);
  });
});

describe.each(STREAMING)('$name', (mountOf) => {
  test('gives up a body that does not come to its end', async () => {
    const { url } = await mount(mountOf);
    const startedAt = performance.now();
    const answer = await send(
      url,
      { method: 'POST', headers: { ...JSON_BODY, 'content-length': 100 } },
      (request) => request.write('{'),
    );
    await expectRefusal(answer, 408, 'REQUEST_TIMEOUT');
    expect(performance.now() - startedAt).toBeLessThan(BODY_TIMEOUT_MS + MACHINE_MS_MAX);
  });

  test('reads an endless body no further than its limit', async () => {
    const { url } = await mount(mountOf);
    let written = 0;
    const answer = await send(url, { method: 'POST', headers: JSON_BODY }, (request) => {
      const write = () => {
        written += 1024;
        request.write('x'.repeat(1024));
      };
      const endless = setInterval(write, 1);
      request.on('response', () => clearInterval(endless));
      request.on('error', () => clearInterval(endless));
    });
    await expectRefusal(answer, 413, 'BODY_TOO_LARGE');
    expect(written).toBeGreaterThanOrEqual(32 * 1024);
  });
});

test.each(STREAMING_NODE)(
  '$name: closes a connection whose body it did not read to its end',
  async (mountOf) => {
    const { url } = await mount(mountOf);
    const sent = { method: 'POST', headers: { ...JSON_BODY, 'content-length': 100_000 } };
    const agent = new http.Agent({ keepAlive: true });
    const answer = await send(url, { ...sent, agent }, (request) =>
      request.write('x'.repeat(40_000)),
    );
    expect(answer).toMatchObject({ status: 413, headers: { connection: 'close' } });
  },
);

test.each(CONSUMED)('$name: refuses, and the log says what to do', async (mountOf) => {
  const { post } = await mount(mountOf);
  await expectRefusal(await askWith(post, id), 500, 'CHECK_NOT_ANSWERED');
  expect(records).toHaveLength(1);
  expect(records[0]).toMatchObject({
    level: 'error',
    message: expect.stringMatching(
      /raw bytes: (mount the check handler before|give the check handler)/,
    ),
  });
});

test('what the local transaction supplied for open messages goes with the answer', async () => {
  const { post } = await mount(STREAMING[0]!);
  const messageData = [
    { number: 0, data: { userId: 7, name: '漢字' } },
    { number: 2, dataBase64: 'AAE=', contentType: 'application/x-protobuf' },
  ];
  await writeCommit(messageData);
  const { status, body } = await askWith(post, id);
  expect([status, JSON.parse(body)]).toEqual([200, { id, decision: 'commit', messageData }]);
});

test('a check that is cut off while it is sent is told, and the next one is answered', async () => {
  const { url, post } = await mount(STREAMING[0]!);
  const cut = send(
    url,
    { method: 'POST', headers: { ...JSON_BODY, 'content-length': 100 } },
    (request) => {
      request.write('{', () => request.destroy());
    },
  );
  await expect(cut).rejects.toThrow('socket hang up');
  expect((await askWith(post, id)).status).toBe(200);
});

test('limits that are none are refused when it is mounted', () => {
  const check: CheckHandler = async () => ({ status: 200, headers: {}, body: '' });
  expect(() => expressCheckHandler(check, { bodyTimeoutMs: 0 })).toThrow(
    expect.objectContaining({ code: 'INVALID_CONFIGURATION' }),
  );
});
