import { type ConsumerEvent, createConsumer } from '@escrowmq/consumer';
import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { publish } from '../support/publish.js';
import { onChannel } from '../support/rabbit.js';
import { until } from '../support/until.js';

/* What a RabbitMQ user may not do, on a server of our own. */

let rabbitmq: PrivateRabbitmq;
beforeAll(async () => {
  rabbitmq = await startPrivateRabbitmq();
});
afterAll(() => rabbitmq.remove());

/** The URL of a new user, with these rights on a virtual host. */
async function userWith(name: string, rights: string[], vhost = '/', password = 'secret') {
  await rabbitmq.ctl('add_user', name, password);
  if (rights.length > 0) await rabbitmq.ctl('set_permissions', '-p', vhost, name, ...rights);
  const encode = encodeURIComponent;
  return `amqp://${encode(name)}:${encode(password)}@127.0.0.1:${rabbitmq.port}/${encode(vhost)}`;
}

const refusal = async (url: string) => {
  const consumer = createConsumer({ rabbitmq: url, logger: () => {} });
  const error = await consumer
    .subscribe({ topic: 't', group: 'g' }, () => {})
    .then(
      () => new Error('nothing was refused'),
      (failure: Error) => failure,
    );
  await consumer.close();
  return error;
};

describe('U15: on a server of our own', () => {
  test.each([
    ['jürgen', 'paß wört%é:@/?#'],
    ['名前', '密码🔑'],
  ])('user %s with password %s gets in', async (name, password) => {
    const url = await userWith(name, ['.*', '.*', '.*'], '/', password);
    const consumer = createConsumer({ rabbitmq: url, logger: () => {} });
    await consumer.subscribe({ topic: 'non-ascii', group: 'g' }, () => {});
    await consumer.close();
  });

  test('a virtual host on which the user has no permission is named at once', async () => {
    await rabbitmq.ctl('add_vhost', 'orders/ü');
    const error = await refusal(await userWith('no-rights', [], 'orders/ü'));
    expect(error).toMatchObject({ code: 'INVALID_CONFIGURATION' });
    for (const word of ['"no-rights"', '"orders/ü"', 'give the user permissions']) {
      expect(error.message).toContain(word);
    }
    expect(error.message).not.toContain('secret');
  });

  test('a virtual host that takes no more connections is tried again until it does', async () => {
    await rabbitmq.ctl('add_vhost', 'full');
    const url = await userWith('many', ['.*', '.*', '.*'], 'full');
    const limit = (connections: number) =>
      rabbitmq.ctl('set_vhost_limits', '-p', 'full', `{"max-connections": ${connections}}`);
    await limit(0);
    const events: ConsumerEvent[] = [];
    const consumer = createConsumer({ rabbitmq: url, logger: (event) => events.push(event) });
    const subscribing = consumer.subscribe({ topic: 't', group: 'g' }, () => {});
    await until('it was refused', () => events.some(({ event }) => event === 'connectionLost'));
    expect(events.find(({ event }) => event === 'connectionLost')).toMatchObject({
      cause: expect.stringContaining('connection limit (0) is reached'),
    });
    await limit(-1);
    await subscribing;
    await consumer.close();
  });
});

describe('N02: a user that may not announce', () => {
  test.each([
    ['declare the exchange', ['^(escrow:announcements-topic:.*|announcements-topic)$', '.*', '.*']],
    ['publish to it', ['.*', '^(?!escrow:announcements$).*', '.*']],
    ['bind to it', ['.*', '.*', '^(?!escrow:announcements$).*']],
  ])('%s is told once, and consumes', async (what, rights) => {
    const url = await userWith(`may not ${what}`, rights);
    const events: ConsumerEvent[] = [];
    const consumer = createConsumer({ rabbitmq: url, logger: (event) => events.push(event) });
    const received: unknown[] = [];
    const names = { topic: 'announcements-topic', group: `group-${rights.join('').length}` };
    await consumer.subscribe({ ...names, retryDelaysMs: [] }, ({ data }) => received.push(data));
    const isTold = () => events.filter(({ event }) => event === 'announcementsRefused');
    await until('it is told', () => isTold().length > 0);
    expect(isTold()).toMatchObject([{ cause: expect.stringMatching(/ACCESS.REFUSED/) }]);
    await onChannel(rabbitmq.url, (channel) => publish(channel, { ...names, data: what }));
    await until('a message is handled', () => received.length === 1);
    expect(isTold()).toHaveLength(1);
    const others = events.map(({ event }) => event).filter((event) => /Lost$/.test(event));
    expect(others).toEqual([]);
    await consumer.close();
  });
});
