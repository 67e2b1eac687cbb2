import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePorts } from '@escrowmq/local-servers';
import { expect, test } from '@jest/globals';
import { rabbitmqUrl } from '../support/servers.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

test('U18: SIGTERM to npm start ends the broker in order, with its exit code', async () => {
  const [port] = await freePorts(1);
  const npm = spawn('npm', ['start'], {
    cwd: ROOT,
    env: {
      ...process.env,
      ESCROW_LISTEN: `127.0.0.1:${port}`,
      ESCROW_STORE: 'sqlite::memory:',
      ESCROW_RABBITMQ: rabbitmqUrl(),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(npm, 'exit');
  const events: unknown[] = [];
  for await (const line of createInterface({ input: npm.stdout })) {
    if (!line.startsWith('{')) continue;
    const { event } = JSON.parse(line) as { event: string };
    events.push(event);
    if (event === 'listening') npm.kill('SIGTERM');
  }
  // Its output ends when the broker has ended, whoever started it.
  expect(events.slice(-2)).toEqual(['shutting down', 'stopped']);
  expect(await exit).toEqual([0, null]);
});

test('U18: every script that lives long is npm itself, so that signals reach it', () => {
  const { scripts } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')) as {
    scripts: Record<string, string>;
  };
  const throughShell = Object.entries(scripts).filter(([, command]) => command.startsWith('node '));
  expect(throughShell).toEqual([]);
});
