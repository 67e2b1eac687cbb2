import { type ChildProcess, spawn } from 'node:child_process';
import { once as onceEvent } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ConsumerEvent } from '@escrowmq/consumer';
import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { partitionQueueOf } from '../../consumer-sdk/src/ordered/topology.js';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { publish } from '../support/publish.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * A process of its own, because what is tried here ends one: whatever the users' handlers, listeners,
 * tracer and logger do, the process goes on and every message gets its end.
 */
const CHILD = fileURLToPath(new URL('../support/user-code-child.mjs', import.meta.url));
const RETRY_MS = 20;

let folder: string;
let bench: ConsumerBench;
let child: ChildProcess | undefined;
let said: { stdout: string; stderr: string };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'escrow-user-code-'));
  bench = await openBench(rabbitmqUrl(), [RETRY_MS]);
});

afterEach(async () => {
  child?.kill('SIGKILL');
  const groups = ['ordered', 'batch'].map((name) => `${bench.group}-${name}`);
  for (const group of groups) {
    await bench.channel.deleteQueue(queueName(bench.topic, group));
    await bench.channel.deleteQueue(deadLetterQueueName(bench.topic, group));
    await bench.channel.deleteQueue(retryQueueName(bench.topic, group, RETRY_MS));
    const topology = {
      topic: bench.topic,
      group,
      partitions: 1,
      routingKeys: [],
      retryDelaysMs: [],
    };
    await bench.channel.deleteQueue(partitionQueueOf(topology, 0).name);
  }
  await bench.close();
  await rm(folder, { recursive: true, force: true });
});

async function start(logger: 'hostile' | 'none'): Promise<void> {
  const args = [rabbitmqUrl(), join(folder, 'consumer.db'), bench.topic, bench.group, logger];
  const started = spawn(process.execPath, [CHILD, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  child = started;
  const heard = { stdout: '', stderr: '' };
  said = heard;
  started.stdout.on('data', (text) => {
    heard.stdout += text;
  });
  started.stderr.on('data', (text) => {
    heard.stderr += text;
  });
  await until('the child consumes, or has ended', () => {
    if (started.exitCode !== null) throw new Error(`the child has ended: ${heard.stderr}`);
    return heard.stdout.includes('consuming\n');
  });
}

const events = (): ConsumerEvent[] =>
  said.stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));

async function stop(): Promise<number | null> {
  child?.kill('SIGTERM');
  if (child?.exitCode === null) await onceEvent(child, 'exit');
  return child?.exitCode ?? null;
}

/** What a handler does, and how the cause of its failure begins. */
const ACTS: [act: string, cause: RegExp][] = [
  ['throws an object without a prototype', /an object that has no text/],
  ['rejects with an odd message', /^Error: \(its message is no text\)/],
  ['returns a then that throws', /^Error: users do that/],
  ['returns a proxy that was revoked', /revoked/],
  ['times out, with listeners that throw', /did not finish within 300 ms/],
  ['begins once on a copy', /ended while its once was still under way/],
  ['begins latest', /ended while its latest was still under way/],
  ['begins onceBatch by ids', /ended while its onceBatch was still under way/],
  [
    'never looks at a once that failed',
    /(never awaited its once, which failed|ended while its once)/,
  ],
];

test('U07, U08, N01: whatever the code of users does, each message gets its end and the process goes on', async () => {
  await start('hostile');
  const ids = await Promise.all(
    ACTS.map(([data]) => publish(bench.channel, { topic: bench.topic, data })),
  );
  const ordered = { headers: { 'escrow-ordering-key': 'k', 'escrow-sequence': 1 } };
  const inOrder = await publish(bench.channel, {
    topic: bench.topic,
    data: ACTS[0]?.[0],
    ...ordered,
  });
  const of = (id: string | undefined, name: string, group: string) =>
    events().find(
      (event) =>
        event.event === name &&
        'messageId' in event &&
        event.messageId === id &&
        event.group === group,
    );
  const groups = ['', '-ordered', '-batch'].map((name) => bench.group + name);
  for (const group of groups) {
    for (const [index, [act, cause]] of ACTS.entries()) {
      await until(
        `${act} is a dead letter of ${group}`,
        () => !!of(ids[index], 'deadLettered', group),
      );
      expect(of(ids[index], 'deadLettered', group)).toMatchObject({
        attempts: 2,
        cause: expect.stringMatching(cause),
      });
    }
    await until(`the last one of ${group}`, () => !!of(inOrder, 'deadLettered', group));
  }
  for (const id of ids)
    await until('it was dropped', () => !!of(id, 'messageDropped', '(ephemeral)'));
  expect(await stop()).toBe(0);
  expect(said.stdout).toMatch(/closed\n$/);
  expect(said.stderr).toContain('the logger failed at the event');
  expect(said.stderr.match(/the logger failed at the event/g)).toHaveLength(1);
  expect(events().filter(({ event }) => event === 'callbackFailed').length).toBeGreaterThan(0);
});

test('N04: without a logger a handler that fails is on stderr, with its stack and its cause, bounded', async () => {
  await start('none');
  const data = 'returns a then that throws';
  await Promise.all(
    Array.from({ length: 20 }, () => publish(bench.channel, { topic: bench.topic, data })),
  );
  await until('a dead letter was told for each group', () =>
    ['', '-ordered', '-batch'].every((name) =>
      new RegExp(`was given up.*group: ${bench.group}${name},`).test(said.stderr),
    ),
  );
  expect(said.stderr).toMatch(
    /escrowmq consumer: a handler failed; its message comes again.*\n\s+Error: users do that\n\s+at [\s\S]*?caused by Error: the root\n\s+at /,
  );
  const lines = said.stderr.split('\n').filter((line) => line.startsWith('escrowmq consumer:'));
  // Four kinds of three groups; 20 messages of two attempts each would make more than 120.
  expect(lines.length).toBeLessThan(30);
  expect(await stop()).toBe(0);
});
