import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { type ConsumerEvent, createConsumer } from '@escrowmq/consumer';
import { isEscrowError } from '@escrowmq/protocol';
import { afterEach, describe, expect, test } from '@jest/globals';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** The port of a server that answers the first bytes it gets in this way, and ends. */
async function portThatSays(said: string): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => socket.end(Buffer.from(said, 'latin1')));
  }).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** What `subscribe` rejects with, long before its 30 s are over. */
async function refusal(rabbitmq: string): Promise<Error & { code: string }> {
  const consumer = createConsumer({ rabbitmq, logger: () => {} });
  const startedAt = performance.now();
  const error = await consumer
    .subscribe({ topic: uniqueName('topic'), group: uniqueName('group') }, () => {})
    .then(
      () => new Error('nothing was refused'),
      (failure: unknown) => failure,
    );
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  await consumer.close();
  if (!isEscrowError(error)) throw error;
  return error;
}

describe('U15: what no later attempt can change is told at once, in words', () => {
  test('a virtual host that is not there, with host and user, and without the password', async () => {
    const url = new URL(rabbitmqUrl());
    url.pathname = '/no-such-vhost-ü';
    const { code, message } = await refusal(url.href);
    expect(code).toBe('INVALID_CONFIGURATION');
    for (const word of [url.host, '"no-such-vhost-ü"', `"${url.username}"`, 'not found']) {
      expect(message).toContain(word);
    }
  });

  test('a wrong password', async () => {
    const url = new URL(rabbitmqUrl());
    url.password = 'no-such-secret';
    const { code, message } = await refusal(url.href);
    expect(code).toBe('INVALID_CONFIGURATION');
    expect(message).toContain(`refused the login of user "${url.username}"`);
    expect(message).not.toContain('no-such-secret');
  });

  test('a plain port that is called with TLS', async () => {
    const { code, message } = await refusal(rabbitmqUrl().replace('amqp:', 'amqps:'));
    expect(code).toBe('INVALID_CONFIGURATION');
    expect(message).toContain('nobody speaks TLS');
  });

  test.each([
    ['a web server', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
    ['another version of AMQP', 'AMQP\x03\x01\0\0'],
    ['a server answers that speaks TLS', '\x15\x03\x01\0\x02\x02\x16'],
    ['no RabbitMQ', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ])('%s at the port', async (what, said) => {
    const { code, message } = await refusal(`amqp://127.0.0.1:${await portThatSays(said)}`);
    expect(code).toBe('INVALID_CONFIGURATION');
    expect(message).toContain(what);
  });

  test('a server that hangs up without a word is tried again, and that is said in words', async () => {
    const events: ConsumerEvent[] = [];
    const consumer = createConsumer({
      rabbitmq: `amqp://127.0.0.1:${await portThatSays('')}`,
      logger: (event) => events.push(event),
      startTimeoutMs: 500,
    });
    const subscribing = consumer.subscribe({ topic: 'topic', group: 'group' }, () => {});
    await expect(subscribing).rejects.toMatchObject({
      code: 'BROKER_UNREACHABLE',
      message: expect.stringContaining('said nothing after the greeting'),
    });
    // One of each connection is no second attempt.
    await until('it is tried again', () => {
      return events.filter(({ event }) => event === 'connectionLost').length > 2;
    });
    await consumer.close();
  });
});
