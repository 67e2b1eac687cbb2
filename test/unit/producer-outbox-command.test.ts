import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createOutboxRelay, createProducer, type ProducerOptions } from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createPool } from 'mysql2/promise';
import { openByUrl } from '../../producer-sdk/src/outbox/outbox-command-database.js';
import { parseCommand } from '../../producer-sdk/src/outbox/outbox-command-options.js';

const FLAGS = ['--broker', 'http://a:7171', '--broker', 'http://b:7171', '--producer-group', 'g'];
const DATABASE = 'mysql://escrow:secret@127.0.0.1/app';
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'escrow-outbox-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('the relay as a command', () => {
  test('takes flags, and secrets from the environment', () => {
    const environment = { ESCROW_OUTBOX_DATABASE: DATABASE, ESCROW_API_KEY: 'key', PATH: '/bin' };
    expect(parseCommand([...FLAGS, '--once', '--purge-after-days', '7'], environment)).toEqual({
      brokers: ['http://a:7171', 'http://b:7171'],
      producerGroup: 'g',
      apiKey: 'key',
      databaseUrls: [DATABASE],
      createTable: false,
      purgeAfterDays: 7,
      once: true,
    });
  });

  test('takes several databases', () => {
    const databases = ['--database', 'sqlite:a.db', '--database', 'sqlite:b.db'];
    expect(parseCommand([...FLAGS, ...databases, '--create-table'], {})).toMatchObject({
      databaseUrls: ['sqlite:a.db', 'sqlite:b.db'],
      apiKey: undefined,
      createTable: true,
      once: false,
    });
  });

  test.each([
    ['keeps what was sent for a week where it makes the table', ['--create-table'], 7],
    ['purges nothing where it does not', [], undefined],
    [
      'purges nothing where it is told so',
      ['--create-table', '--purge-after-days', 'never'],
      undefined,
    ],
    ['purges at another age', ['--create-table', '--purge-after-days', '1.5'], 1.5],
  ])('%s', (_, flags, purgeAfterDays) => {
    expect(parseCommand([...FLAGS, ...flags], { ESCROW_OUTBOX_DATABASE: DATABASE })).toMatchObject({
      purgeAfterDays,
    });
  });

  test('reads secrets from files', () => {
    const file = (name: string, text: string) => {
      const path = join(folder, name);
      writeFileSync(path, text);
      return path;
    };
    const environment = {
      ESCROW_OUTBOX_DATABASE_FILE: file('database', `${DATABASE}\n`),
      ESCROW_API_KEY_FILE: file('key', 'from a file\n'),
      // As compose files write what is not set.
      ESCROW_API_KEY: '',
    };
    expect(parseCommand(FLAGS, environment)).toMatchObject({
      databaseUrls: [DATABASE],
      apiKey: 'from a file',
    });
  });

  test('only helps where it is asked to', () => {
    expect(parseCommand(['--help'], {})).toBeUndefined();
  });

  const given = { ESCROW_OUTBOX_DATABASE: DATABASE };
  test.each([
    ['no database', FLAGS, {}, '--database'],
    ['no broker', ['--producer-group', 'g'], given, '--broker'],
    ['no producer group', ['--broker', 'http://a'], given, '--producer-group'],
    ['an unknown flag', [...FLAGS, '--verbose'], given, '--verbose'],
    ['a purge that is too early', [...FLAGS, '--purge-after-days', '0.5'], given, '0.5'],
    ['a purge that is no number', [...FLAGS, '--purge-after-days', 'week'], given, 'week'],
    ['a secret twice', FLAGS, { ...given, ESCROW_OUTBOX_DATABASE_FILE: '/x' }, 'both set'],
    ['a file that is not there', FLAGS, { ...given, ESCROW_API_KEY_FILE: '/x/y' }, 'API_KEY_FILE'],
  ])('refuses %s, by its name', (_, args, environment, named) => {
    expect(() => parseCommand(args, environment)).toThrow(
      expect.objectContaining({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringContaining(named),
      }),
    );
  });

  test('refuses a database that it can not open, without showing its URL', async () => {
    const opened = openByUrl('oracle://escrow:secret@127.0.0.1/app');
    await expect(opened).rejects.toMatchObject({ code: 'INVALID_CONFIGURATION' });
    await expect(opened).rejects.not.toThrow(/secret/);
  });
});

describe('outbox mode', () => {
  const settings = { brokers: ['http://127.0.0.1:1'], producerGroup: 'g' };

  test.each([
    ['a list of topics alone', ['user']],
    ['no topics', {}],
    ['nothing', null],
    ['a topic that can be none', { topics: ['amq.topic'] }],
  ])('refuses %s', (_, outbox) => {
    const options = { ...settings, outbox } as unknown as ProducerOptions;
    expect(() => createProducer(options)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^INVALID_/) }),
    );
  });

  test.each([
    ['no database', {}, 'database or databases'],
    ['both kinds of databases', { database: 'pool', databases: {} }, 'database or databases'],
    ['databases without any', { databases: {} }, 'names none'],
    ['a lease of no time', { database: 'pool', leaseMs: 0 }, 'leaseMs'],
    ['a producer that is none', { database: 'pool', producer: {} }, 'createProducer'],
  ])('a relay refuses %s', async (_, given, named) => {
    const pool = createPool(DATABASE);
    const database = 'database' in given ? { database: pool } : {};
    const options = { ...settings, ...given, ...database } as Parameters<
      typeof createOutboxRelay
    >[0];
    expect(() => createOutboxRelay(options)).toThrow(
      expect.objectContaining({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringContaining(named),
      }),
    );
    await pool.end();
  });
});
