import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ensurePackages } from '@escrowmq/local-servers';
import { createProducer, type Producer } from '@escrowmq/producer';
import {
  messageIdOf,
  RECEIPTS_QUEUE_ARGUMENTS,
  ReceiptBatch,
  receiptsQueueName,
} from '@escrowmq/protocol';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type ChannelModel, type ConfirmChannel, connect } from 'amqplib';
import { openSqlite } from '../../broker/src/store/sqlite/driver.js';
import { registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { describeUnless } from '../support/describe-unless.js';
import { amqpProperties, newTransactionId, publish, type TestMessage } from '../support/publish.js';
import { takeFrom } from '../support/rabbit.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * The consumer in Python of examples/other-languages, as its README says to run it, against the real
 * broker and RabbitMQ. What it prints is what somebody reads who has no SDK of ours.
 */

const EXAMPLE = fileURLToPath(new URL('../../examples/other-languages/', import.meta.url));
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'escrow-python-'));

const PYTHON = join(folder, 'venv', 'bin', 'python');

/** What `python3 -m` knows. */
function hasModule(name: string): boolean {
  try {
    execFileSync('python3', ['-m', name, '--help'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** @returns why the example can't be run here, and what it needs; undefined when it can */
async function pythonProblem(): Promise<string | undefined> {
  try {
    await ensurePackages([
      { name: 'python3-venv', isInstalled: () => hasModule('venv') },
      { name: 'python3-pip', isInstalled: () => hasModule('pip') },
    ]);
    // With the pip of the system: a pip of its own takes 13 s to put there instead of half a second.
    await run('python3', ['-m', 'venv', '--without-pip', join(folder, 'venv')]);
    const requirements = join(EXAMPLE, 'requirements.txt');
    const install = ['install', '-q', '-r', requirements];
    await run('python3', ['-m', 'pip', '--python', PYTHON, ...install]);
    return undefined;
  } catch (error) {
    rmSync(folder, { recursive: true });
    return `the consumer in Python needs python3 with venv and pip 22.3, and a package index with pika: ${String(error)}`;
  }
}

interface Line {
  id: string;
  result: 'applied' | 'duplicate';
  checksum: 'verified' | 'absent';
  [field: string]: unknown;
}

describeUnless(await pythonProblem())('a consumer group in Python', () => {
  const topic = uniqueName('user');
  const group = uniqueName('python');
  const producerGroup = uniqueName('accounts');
  const database = join(folder, 'consumer.db');
  const lines: Line[] = [];
  let complaints = '';
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let producer: Producer;
  let connection: ChannelModel;
  let channel: ConfirmChannel;
  let consumer: ChildProcess;

  async function startConsumer(): Promise<void> {
    const where = ['--rabbitmq', rabbitmqUrl(), '--database', database];
    const what = ['--topic', topic, '--group', group, '--routing-key', 'registered'];
    consumer = spawn(PYTHON, [join(EXAMPLE, 'consumer.py'), ...where, ...what], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    complaints = '';
    consumer.stderr?.on('data', (chunk) => {
      complaints += String(chunk);
    });
    const output = createInterface({ input: consumer.stdout as NodeJS.ReadableStream });
    output.on('line', (line) => lines.push(JSON.parse(line) as Line));
    await until('the consumer consumes', () => complaints.includes('consuming '));
  }

  async function linesOf(id: string, count = 1): Promise<Line[]> {
    const found = () => lines.filter((line) => line.id === id);
    await until(`${id} was printed ${count} times`, () => found().length >= count);
    return found();
  }

  /** What the work has written, and who has applied it, side by side. */
  function written(id: string): { applied: number; events: string[] } {
    const opened = openSqlite(database);
    try {
      const read = (sql: string, ...values: string[]) =>
        opened.prepare(sql).all(...values) as { value: string | number }[];
      const counted = 'select count(*) as value from consumed where message_id = ?';
      const bodies = read('select cast(body as text) as value from event');
      return {
        applied: Number(read(counted, id)[0]?.value),
        events: bodies.map(({ value }) => String(value)),
      };
    } finally {
      opened.close();
    }
  }

  const deadLetter = () => takeFrom(channel, `${topic}.${group}.dead`);

  /** Like the broker's, but with whatever is to be tried. */
  const publishRaw = (message: Omit<TestMessage, 'topic'>) =>
    publish(channel, { topic, routingKey: 'registered', ...message });

  beforeAll(async () => {
    store = await freshStore('sqlite');
    broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    await registerGroup(broker.url, producerGroup, ['http://127.0.0.1:1/'], {});
    producer = createProducer({ brokers: [broker.url], producerGroup });
    connection = await connect(rabbitmqUrl());
    channel = await connection.createConfirmChannel();
    await startConsumer();
  });
  afterAll(async () => {
    consumer.kill('SIGKILL');
    for (const queue of [`${topic}.${group}`, `${topic}.${group}.dead`]) {
      await channel.deleteQueue(queue);
    }
    await channel.deleteExchange(topic);
    await connection.close();
    await producer.close();
    await broker.stop();
    await store.remove();
    rmSync(folder, { recursive: true });
  });

  test('reads everything that the broker says of a message', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const { id } = await producer.send({
      messages: [
        {
          topic,
          routingKey: 'registered',
          data: { name: 'Žofie ✓' },
          cloudEvents: { type: 'com.example.user.registered', subject: 'users/7' },
        },
      ],
      expects: [group],
      trace: { traceparent },
    });
    const messageId = messageIdOf(id, 0);
    const { preparedAt } = await view(broker.url, id);
    expect(await linesOf(messageId)).toEqual([
      {
        id: messageId,
        transactionId: id,
        producerGroup,
        topic,
        routingKey: 'registered',
        preparedAt,
        contentType: 'application/json',
        traceparent,
        cloudEvents: {
          specversion: '1.0',
          id: messageId,
          source: `/producer-groups/${producerGroup}`,
          type: 'com.example.user.registered',
          time: new Date(preparedAt).toISOString(),
          subject: 'users/7',
          datacontenttype: 'application/json',
        },
        checksum: 'verified',
        result: 'applied',
      },
    ]);
    expect(written(messageId)).toEqual({ applied: 1, events: ['{"name":"Žofie ✓"}'] });
    await until('its receipt settles it', async () => (await view(broker.url, id)).settled);
  });

  test('applies a message once, however often it comes, and remembers it across a restart', async () => {
    const again = { transactionId: newTransactionId(), data: 'again' };
    const id = await publishRaw(again);
    await publishRaw(again);
    await linesOf(id, 2);
    consumer.kill('SIGTERM');
    expect(await once(consumer, 'exit')).toEqual([0, null]);
    await publishRaw(again);
    await startConsumer();
    const printed = await linesOf(id, 3);
    expect(printed.map(({ result }) => result)).toEqual(['applied', 'duplicate', 'duplicate']);
    const { applied, events } = written(id);
    expect(applied).toBe(1);
    expect(events.filter((body) => body === '"again"')).toHaveLength(1);
  });

  test('makes a dead letter of a body that is not what was sent, and applies nothing of it', async () => {
    const properties = amqpProperties({ topic, data: { sum: 100 } });
    const { messageId } = properties;
    channel.publish(topic, 'registered', Buffer.from('{"sum":900}'), properties);
    expect((await deadLetter()).properties.messageId).toBe(messageId);
    expect(complaints).toContain('checksum differs');
    expect(written(messageId)).toMatchObject({ applied: 0 });
    expect(written(messageId).events).not.toContain('{"sum":900}');
    channel.publish(topic, 'registered', Buffer.from('{"sum":100}'), properties);
    expect(await linesOf(messageId)).toMatchObject([{ checksum: 'verified', result: 'applied' }]);
  });

  test('says that it has given up, to whoever waits for it', async () => {
    const receipts = receiptsQueueName(uniqueName('tests'));
    await channel.assertQueue(receipts, { durable: true, arguments: RECEIPTS_QUEUE_ARGUMENTS });
    const properties = amqpProperties({ topic, data: 'sent', expects: ['other', group] });
    const published = { ...properties, replyTo: receipts };
    channel.publish(topic, 'registered', Buffer.from('"altered"'), published);
    const { receipts: sent } = ReceiptBatch.parse(
      JSON.parse(String((await takeFrom(channel, receipts)).content)),
    );
    expect(sent).toEqual([
      {
        messageId: properties.messageId,
        consumerGroup: group,
        kind: 'failed',
        attempts: 1,
        cause: expect.stringContaining('checksum differs'),
      },
    ]);
    expect((await deadLetter()).properties.messageId).toBe(properties.messageId);
    await channel.deleteQueue(receipts);
  });

  test('makes a dead letter of what is no message of EscrowMQ', async () => {
    channel.publish(topic, 'registered', Buffer.from('hello'), { mandatory: true });
    await channel.waitForConfirms();
    expect((await deadLetter()).content.toString()).toBe('hello');
  });
});
