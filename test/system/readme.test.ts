import { execFile } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import {
  blocksOf,
  README_PRINTS,
  readmeEnvironment,
  readmeProgram,
  withoutTypes,
} from '../support/readme.js';
import { rabbitmqUrl } from '../support/servers.js';

const run = promisify(execFile);
// Inside the repository, so that Node finds the packages; an ignored folder.
const SNIPPET = new URL('../../dist-readme-snippet.mjs', import.meta.url);

describe('the transcript with curl', () => {
  let rabbitmq: PrivateRabbitmq;
  beforeAll(async () => {
    rabbitmq = await startPrivateRabbitmq({ management: true });
  });
  afterAll(() => rabbitmq.remove());

  test.each(['sqlite', 'mysql'] as const)('works when pasted, on %s', async (kind) => {
    const store = await freshStore(kind);
    const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
    const [transcript = ''] = await blocksOf('README.md', 'bash');
    const script = transcript
      .replace('http://127.0.0.1:7171', broker.url)
      .replace('http://guest:guest@127.0.0.1:15672', String(rabbitmq.managementUrl));
    const { stdout } = await run('bash', ['-eu', '-o', 'pipefail', '-c', script]);
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(answers).toMatchObject([
      { producerGroup: 'accounts', signingSecret: expect.stringMatching(/^whsec_/) },
      { state: 'committed' },
      { businessKey: 'phone:13800000000', settled: true },
      [{ payload: '{"userId":7}', routing_key: 'registered', exchange: 'user' }],
      { state: 'forwarded', settled: true, decision: { by: 'producer' } },
    ]);
    await broker.stop();
    await store.remove();
  });
});

test('N03: the SDKs in forty lines do what they say, at the first start and at the second', async () => {
  const store = await freshStore('sqlite');
  const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  await writeFile(SNIPPET, withoutTypes(await readmeProgram()));
  const env = await readmeEnvironment(broker.url);
  try {
    const outputs: string[] = [];
    for (const _ of ['first', 'second']) {
      const program = [fileURLToPath(SNIPPET)];
      const { stdout } = await run(process.execPath, program, { env, timeout: 30_000 });
      expect(stdout).toMatch(README_PRINTS);
      outputs.push(stdout);
    }
    // Each its own user, in the same databases.
    expect(new Set(outputs).size).toBe(2);
  } finally {
    await rm(SNIPPET, { force: true });
    await broker.stop();
    await store.remove();
  }
});
