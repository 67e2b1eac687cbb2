import { execFile } from 'node:child_process';
import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createProducer } from '@escrowmq/producer';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { describeUnless } from '../support/describe-unless.js';
import { fillStore, finish, look, STATES_BEFORE } from '../support/filled-store.js';
import { ROOT } from '../support/packed.js';
import { buildRelease01, type Release01, release01Problem } from '../support/release-0-1.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';

const run = promisify(execFile);

/** A compiler and four times npm take 20 s, and many times that where others use the machine. */
const BUILD_MS_MAX = 400_000;

/** What the service sees, whichever side is of 0.1. */
const SEEN = {
  registered: 'string',
  commit: 'committed',
  rollback: 'rolledBack',
  stateConflict: 'STATE_CONFLICT 409 false',
  contentConflict: 'CONTENT_CONFLICT 409 false',
  unknownGroup: 'UNKNOWN_PRODUCER_GROUP 422 false',
  unknownId: 'TRANSACTION_NOT_FOUND 404 false',
  batch: expect.arrayContaining(['STATE_CONFLICT 409 false', 'UNKNOWN_PRODUCER_GROUP 422 false']),
  batchSent: 54,
  settled: true,
  view: ['forwarded', true, ['consumed']],
  cancelled: [0],
  history: ['cancelled'],
  polled: ['rolledBack', 'check'],
  called: ['rolledBack', 'check'],
  compensated: ['0 stock'],
  standing: ['failed'],
  search: ['forwarded', 'rolledBack'],
  consumed: true,
};

describeUnless(release01Problem())('0.1 and this version', () => {
  let old: Release01;
  beforeAll(async () => {
    old = await buildRelease01();
  }, BUILD_MS_MAX);
  afterAll(() => rm(old.folder, { recursive: true, force: true }));

  /** Runs the service in `home`, where its packages are, and returns what it saw. */
  async function serve(home: string, broker: string): Promise<unknown> {
    const file = join(home, 'versions-service.mjs');
    const source = join(ROOT, 'test', 'support', 'versions-service.mjs');
    if (file !== source) await copyFile(source, file);
    const { stdout } = await run(process.execPath, [file], {
      cwd: home,
      env: {
        PATH: process.env.PATH,
        BROKER: broker,
        RABBITMQ: rabbitmqUrl(),
        DATABASE: await freshMysqlDatabase(),
        NAME: uniqueName('versions'),
      },
    });
    return JSON.parse(stdout);
  }

  test('packed SDKs of 0.1 do with this broker what they did with their own', async () => {
    const store = await freshStore('sqlite');
    const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    expect(await serve(old.home, broker.url)).toEqual(SEEN);
    await broker.stop();
    await store.remove();
  });

  test('these SDKs do the same with the broker of 0.1, and say that it is too old for more', async () => {
    const store = await freshStore('sqlite');
    const broker = await startBrokerProcess({
      store: store.url,
      rabbitmq: rabbitmqUrl(),
      main: old.broker,
    });
    // A registration brings a secret of the service's own, which 0.1 did not take.
    expect(await serve(join(ROOT, 'test', 'support'), broker.url)).toEqual({
      ...SEEN,
      registered: expect.stringMatching(
        /the broker is older than this SDK.*upgrade the brokers first/,
      ),
    });
    const producer = createProducer({ brokers: [broker.url], producerGroup: 'newer' });
    const newer = { topic: 'user', data: 1, expects: ['stock'] };
    await expect(producer.send({ messages: [newer] })).rejects.toMatchObject({
      code: 'UNKNOWN_FIELD',
      message: expect.stringMatching(/^the broker is older than this SDK.*expects/s),
    });
    await producer.close();
    await broker.stop();
    await store.remove();
  });

  test.each(['sqlite', 'mysql'] as const)(
    'a store of 0.1 on %s, migrated: nothing lost, nothing changed, and all of it goes on',
    async (kind) => {
      const store = await freshStore(kind);
      const settings = { store: store.url, rabbitmq: rabbitmqUrl() };
      const older = await startBrokerProcess({
        ...settings,
        main: old.broker,
        environment: { ESCROW_UNROUTED_ATTEMPTS_MAX: '1' },
      });
      const stock = await fillStore(older.url);
      const before = await look(older.url, stock);
      expect(before.states).toEqual(STATES_BEFORE);
      await older.stop();

      const newer = await startBrokerProcess(settings);
      expect(await look(newer.url, stock)).toMatchObject(before);
      await finish(newer.url, stock);
      await newer.stop();
      await expect(startBrokerProcess({ ...settings, main: old.broker })).rejects.toThrow(
        'SCHEMA_TOO_NEW',
      );
      await stock.close();
      await store.remove();
    },
  );
});
