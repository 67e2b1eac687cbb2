import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BrokerBench, openBrokerBench } from '../support/broker-bench.js';
import { call, registerGroup } from '../support/broker-client.js';
import { startCheckEndpoint } from '../support/check-endpoint.js';
import { uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/* What an operator reads in the log of a real broker, long before anything is parked. */

describe('N05: what does not work is a warning at its first time, and one line in the first minute', () => {
  let broker: BrokerBench;

  beforeAll(async () => {
    broker = await openBrokerBench('sqlite', uniqueName('user'));
  });
  afterAll(() => broker.remove());

  const warnings = (facts: object) =>
    broker.log.filter(
      (entry) =>
        entry.level === 'warn' &&
        Object.entries(facts).every(([name, value]) => entry[name] === value),
    );

  test('a topic that nobody is bound to', async () => {
    const misspelt = uniqueName('usr');
    const group = uniqueName('accounts');
    await registerGroup(broker.url, group);
    const send = () =>
      call(`${broker.url}/v1/messages`, 'POST', {
        producerGroup: group,
        messages: [{ topic: misspelt, data: 1 }],
      });
    const { body } = await send();
    await until('it is said', () => warnings({ topic: misspelt }).length > 0);
    expect(warnings({ topic: misspelt })).toMatchObject([
      {
        event: 'no queue is bound for messages of a topic, which are tried again',
        transactionId: body.id,
        producerGroup: group,
      },
    ]);

    await Promise.all(Array.from({ length: 20 }, send));
    await until('they are tried', async () => {
      const { body: metrics } = await call(`${broker.url}/metrics`);
      return /^escrow_publishes_total\{outcome="returned"\} (2[1-9]|[3-9]\d)/m.test(metrics);
    });
    expect(warnings({ topic: misspelt })).toHaveLength(1);
  });

  test('a check endpoint that answers none of its checks', async () => {
    const endpoint = await startCheckEndpoint();
    endpoint.answer = (_check, response) => response.writeHead(500).end('out of order');
    const group = uniqueName('accounts');
    await registerGroup(broker.url, group, [endpoint.url], { firstDelayMs: 0, delayMsMax: 100 });
    await broker.prepare(group);
    await until('it is said', () => warnings({ producerGroup: group }).length > 0);
    expect(warnings({ producerGroup: group })).toMatchObject([
      {
        event: 'a check has no answer and is asked again',
        endpoint: endpoint.url,
        detail: expect.stringContaining('HTTP 500'),
      },
    ]);

    await until('it is asked again', () => endpoint.asked.length > 3);
    expect(warnings({ producerGroup: group })).toHaveLength(1);
    await endpoint.close();
  });
});
