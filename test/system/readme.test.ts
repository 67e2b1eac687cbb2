import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { freshStore, startBrokerProcess } from '../support/broker-process.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';

const run = promisify(execFile);
const README = new URL('../../README.md', import.meta.url);
// Inside the repository, so that Node finds the packages; an ignored folder.
const SNIPPET = new URL('../../dist-readme-snippet.mjs', import.meta.url);

async function block(language: string): Promise<string> {
  const text = await readFile(README, 'utf8');
  const found = new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``).exec(text)?.[1];
  if (found === undefined) throw new Error(`the README has no ${language} block`);
  return found;
}

describe('the transcript with curl', () => {
  let rabbitmq: PrivateRabbitmq;
  beforeAll(async () => {
    rabbitmq = await startPrivateRabbitmq({ management: true });
  });
  afterAll(() => rabbitmq.remove());

  test.each(['sqlite', 'mysql'] as const)('works when pasted, on %s', async (kind) => {
    const store = await freshStore(kind);
    const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
    const script = (await block('bash'))
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
  await writeFile(SNIPPET, await block('js'));
  const env = {
    PATH: process.env.PATH,
    BROKER_URL: broker.url,
    DATABASE_URL: await freshMysqlDatabase(),
    RABBITMQ_URL: rabbitmqUrl(),
    SIGNING_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
  };
  try {
    const outputs: string[] = [];
    for (const _ of ['first', 'second']) {
      const program = [fileURLToPath(SNIPPET)];
      const { stdout } = await run(process.execPath, program, { env, timeout: 30_000 });
      expect(stdout).toMatch(/^settled: true, user found by phone: \d+\n$/);
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
