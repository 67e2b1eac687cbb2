import { Writable } from 'node:stream';
import { EscrowError } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import type { LogOptions } from '../../broker/src/observe/log.js';
import { createLog } from '../../broker/src/observe/log.js';
import { createMetrics } from '../../broker/src/observe/metrics.js';
import { createObserver } from '../../broker/src/observe/observer.js';
import { safeUrl } from '../../broker/src/observe/redact.js';

/** A log and the lines it has written. */
function logged(options: Omit<LogOptions, 'stream'> = {}) {
  const lines: string[] = [];
  const stream = new Writable({
    write(chunk, _, done) {
      lines.push(...String(chunk).split('\n').slice(0, -1));
      done();
    },
  });
  return { log: createLog({ ...options, stream }), lines };
}

const errorOf = (act: () => unknown): unknown => {
  try {
    return act();
  } catch (error) {
    return error;
  }
};

test('a line is one JSON object with time, level, event and the facts', () => {
  const { log, lines } = logged();
  log.info('listening', { address: '127.0.0.1', port: 7171, degraded: undefined });
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    {
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      level: 'info',
      event: 'listening',
      address: '127.0.0.1',
      port: 7171,
    },
  ]);
});

test('a fact that is not on the list is left out and named', () => {
  const { log, lines } = logged();
  log.info('prepared', {
    transactionId: 'a',
    data: 'CANARY',
    headers: { authorization: 'CANARY' },
    detail: { nested: 'CANARY' },
  });
  expect(lines).toHaveLength(1);
  expect(lines[0]).not.toContain('CANARY');
  expect(JSON.parse(lines[0]!)).toMatchObject({
    transactionId: 'a',
    omitted: ['data', 'headers', 'detail'],
  });
});

test('lines below the level are not written', () => {
  const { log, lines } = logged({ level: 'warn' });
  log.debug('a');
  log.info('b');
  log.warn('c');
  log.error('d');
  expect(lines.map((line) => JSON.parse(line).event)).toEqual(['c', 'd']);
});

test('lines for people begin with time and level, and no text can begin a line of its own', () => {
  const { log, lines } = logged({ json: false });
  log.warn('alert\n2026-01-01 INFO forged', { detail: 'x\nforged' });
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/^\S+Z WARN {2}alert 2026-01-01 INFO forged detail="x\\nforged"$/);
});

test('an error is logged with name, code, message and the messages of its causes, without a stack', () => {
  const { log, lines } = logged();
  const root = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  const middle = new Error('query failed', { cause: root });
  log.error(
    'store',
    {},
    new EscrowError('STORE_UNAVAILABLE', 'the store is away', { cause: middle }),
  );
  expect(JSON.parse(lines[0]!).error).toEqual({
    name: 'EscrowError',
    code: 'STORE_UNAVAILABLE',
    message: 'the store is away',
    causes: ['Error: query failed', 'Error: connect ECONNREFUSED'],
  });
});

test('errors that cause each other and things that are no errors are logged all the same', () => {
  const { log, lines } = logged();
  const circle = new Error('round');
  circle.cause = circle;
  log.error('a', {}, circle);
  log.error('b', {}, 'just text');
  log.error('c', {}, null);
  expect(lines).toHaveLength(3);
});

const CANARY = 'C4n4ry-s3cret';

test.each([
  ['a DSN', `connect to mysql://root:${CANARY}@db:3306/escrow failed`],
  ['a DSN with an @ and a slash in the password', `amqp://guest:a@b/${CANARY}@rabbit/vhost`],
  ['a query', `GET https://accounts/check?token=${CANARY}&x=1 failed`],
  ['a bearer token', `authorization: Bearer ${CANARY}`],
  ['basic credentials', `Authorization: Basic ${CANARY}==`],
  ['a signing secret', `bad secret whsec_${CANARY}`],
  ['a password assignment', `{"password":"${CANARY}"} was refused`],
  ['an API key assignment', `api_key=${CANARY}; refused`],
  ['a duplicate row', `Duplicate entry '${CANARY}' for key 'PRIMARY'`],
  ['a row that does not fit', `Incorrect string value: '${CANARY}' for column 'body' at row 1`],
  ['a key that was told to the log', `refused key ${CANARY}`],
])('%s never shows, in an event, a fact, an error or a cause', (name, text) => {
  for (const json of [true, false]) {
    const secrets = name.includes('was told') ? [CANARY] : [];
    const { log, lines } = logged({ json, secrets });
    log.info(text);
    log.info('fact', { detail: text, server: [text] });
    log.error('error', {}, new Error('outer', { cause: new Error(text) }));
    log.error('error', {}, Object.assign(new Error(text), { sql: text, stack: text, code: 'E' }));
    expect(lines).toHaveLength(4);
    expect(lines.join('\n')).not.toContain(CANARY);
    expect(lines.join('\n')).toContain('[redacted]');
  }
});

test.each([`${CANARY}`, `{"data":"${CANARY}"`, `{"data": ${CANARY}}`, `["${CANARY}",]`])(
  'the body that the JSON parser quotes never shows: %s',
  (body) => {
    const { log, lines } = logged();
    log.error(
      'parsing',
      {},
      errorOf(() => JSON.parse(body)),
    );
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toContain('s3cret');
    expect(JSON.parse(lines[0]!).error.name).toBe('SyntaxError');
  },
);

test('what helps the operator stays readable', () => {
  const { log, lines } = logged();
  const detail =
    'connect ECONNREFUSED 127.0.0.1:3306; see https://db:3306/path and mail a@b.example';
  log.info('x', { detail });
  expect(JSON.parse(lines[0]!).detail).toBe(detail);
});

test('a text of megabytes is cut, quickly', () => {
  const { log, lines } = logged();
  const startedAt = performance.now();
  log.info('x', { detail: 'amqp://'.repeat(1_000_000) });
  log.info('x', { detail: 'password='.repeat(1_000_000) });
  // Tens of milliseconds; a pattern that goes back over what it read takes minutes.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  expect(lines.every((line) => line.length < 1_500)).toBe(true);
});

test.each([
  ['mysql://root:secret@db:3306/escrow?ssl=1', 'mysql://db:3306/escrow'],
  ['amqps://u:p%40@rabbit/vhost#x', 'amqps://rabbit/vhost'],
  ['https://accounts/check?token=secret', 'https://accounts/check'],
  ['sqlite:escrow.db', 'sqlite:escrow.db'],
  ['root:secret@db', '[unreadable URL]'],
  ['not a url secret', '[unreadable URL]'],
])('the URL %s is shown as %s', (url, shown) => {
  expect(safeUrl(url)).toBe(shown);
});

test('an alert is an error line with the transaction and a counter without it', async () => {
  const { log, lines } = logged();
  const metrics = createMetrics();
  const observer = createObserver(log, metrics);
  observer.alert({
    kind: 'parked',
    transactionId: 'id-of-it',
    producerGroup: 'accounts',
    detail: `mysql://u:${CANARY}@db`,
  });
  observer.failed('forwarding', new Error(`amqp://u:${CANARY}@rabbit`));
  observer.info('started', { version: '1' });
  observer.count('verdicts', { decision: 'commit' }, 3);
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { level: 'error', event: 'alert', kind: 'parked', transactionId: 'id-of-it' },
    { level: 'warn', event: 'forwarding', error: { name: 'Error' } },
    { level: 'info', event: 'started', version: '1' },
  ]);
  expect(lines.join()).not.toContain(CANARY);
  const { body } = await metrics.scrape();
  expect(body).toContain('escrow_alerts_total{kind="parked"} 1');
  expect(body).toContain('escrow_verdicts_total{decision="commit"} 3');
  expect(body).not.toContain('id-of-it');
});
