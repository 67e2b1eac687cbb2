import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';

const COMMAND = fileURLToPath(
  new URL('../../producer-sdk/dist/outbox/outbox-command.js', import.meta.url),
);
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'escrow-outbox-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

test('the relay opens SQLite without a word on stderr, on every version of Node', async () => {
  const database = `sqlite:${join(folder, 'app.db')}`;
  // Nothing is in the outbox, so the broker is not asked.
  const flags = ['--broker', 'http://127.0.0.1:1', '--producer-group', 'g', '--once'];
  const child = spawn(process.execPath, [COMMAND, ...flags, '--create-table'], {
    env: { PATH: process.env.PATH, ESCROW_OUTBOX_DATABASE: database },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit'),
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const said = stdout.trimEnd().split('\n');
  expect(said.map((line) => JSON.parse(line).message)).toEqual(['relayed', 'stopped']);
});
