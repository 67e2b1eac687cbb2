import type { CheckAnswer, CheckRequest } from '@escrowmq/protocol';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { request } from 'undici';
import { type BrokerBench, openBrokerBench } from '../support/broker-bench.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { startCheckEndpoint } from '../support/check-endpoint.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** The answers come from this process, which a busy machine may keep waiting for a second. */
const POLICY = { firstDelayMs: 0, delayMsMax: 200, timeoutMs: 10_000, unknownMax: 3 };

interface PollBody {
  waitMs?: number;
  limit?: number;
  answers?: Partial<CheckAnswer>[];
}

describe.each(['sqlite', 'mysql'] as const)('on %s', (kind) => {
  const topic = uniqueName('user');
  let broker: BrokerBench;
  let group: string;

  beforeAll(async () => {
    broker = await openBrokerBench(kind, topic);
  });
  afterAll(() => broker.remove());
  beforeEach(() => {
    group = uniqueName('accounts');
  });

  const prepare = (more?: object) => broker.prepare(group, more);
  const poll = async (body: PollBody = {}, at = broker): Promise<CheckRequest[]> => {
    const answer = await call(`${at.url}/v1/producer-groups/${group}/checks`, 'POST', body);
    if (answer.status !== 200) throw new Error(JSON.stringify(answer.body));
    return answer.body.checks;
  };
  /** Polls until there is a check. */
  const firstCheck = async (at = broker): Promise<CheckRequest> => {
    const [check] = await poll({ waitMs: 20_000 }, at);
    if (check === undefined) throw new Error('no check came');
    return check;
  };
  const answer = (id: string, decision: CheckAnswer['decision'], more: Partial<CheckAnswer> = {}) =>
    poll({ answers: [{ id, decision, ...more }] });

  test('a producer that can not be called polls for its check, and its answer forwards', async () => {
    await registerGroup(broker.url, group, [], POLICY);
    const waiting = firstCheck();
    const id = await prepare({ checkContext: 'shard-3', businessKeys: ['phone:1'] });
    expect(await waiting).toEqual({
      id,
      producerGroup: group,
      checkContext: 'shard-3',
      businessKeys: ['phone:1'],
      preparedAt: expect.any(Number),
      attempt: expect.any(Number),
    });
    expect(await answer(id, 'commit')).toEqual([]);
    await until('it is forwarded', async () => (await broker.stateOf(id)) === 'forwarded');
    const decided = await view(broker.url, id);
    expect(decided.decision).toMatchObject({ decision: 'commit', by: 'check pull' });
    expect(decided.history.at(-1)).toMatchObject({
      event: 'check',
      detail: { answer: 'commit', endpoint: 'pull' },
    });
  });

  test('a poll that does not wait gets what is due, or nothing at once', async () => {
    await registerGroup(broker.url, group, [], POLICY);
    expect(await poll()).toEqual([]);
    const ids = [await prepare(), await prepare(), await prepare()];
    const seen = new Set<string>();
    await until('all were handed out', async () => {
      for (const { id } of await poll({ limit: 2 })) seen.add(id);
      return seen.size === 3;
    });
    expect([...seen].sort()).toEqual([...ids].sort());
    await poll({ answers: ids.map((id) => ({ id, decision: 'rollback' })) });
    await until('all are rolled back', async () => {
      const states = await Promise.all(ids.map(broker.stateOf));
      return states.every((state) => state === 'rolledBack');
    });
  });

  test('the data that prepare left open comes with the answer', async () => {
    await registerGroup(broker.url, group, [], POLICY);
    const id = await prepare({ messages: [{ topic, dataAtCommit: true }] });
    await firstCheck();
    await answer(id, 'commit');
    await until(
      'without the data it is no answer',
      async () => (await view(broker.url, id)).checks.unanswered > 0,
    );
    expect(await broker.stateOf(id)).toBe('prepared');
    await firstCheck();
    await answer(id, 'commit', { messageData: [{ number: 0, data: 'polled' }] });
    await until('it arrives', () => broker.received(id).length > 0);
    expect(String(broker.received(id)[0]?.content)).toBe('"polled"');
  });

  test('spent "unknown" answers park it, as with calls', async () => {
    await registerGroup(broker.url, group, [], POLICY);
    const id = await prepare();
    for (let n = 0; n < POLICY.unknownMax; n += 1) {
      const check = await firstCheck();
      expect(check.id).toBe(id);
      await answer(id, 'unknown');
    }
    await until('it is parked', async () => (await broker.stateOf(id)) === 'parked');
  });

  test('an answer that comes too late decides as well; one that contradicts is on record (F36)', async () => {
    await registerGroup(broker.url, group, [], { ...POLICY, timeoutMs: 100, firstDelayMs: 60_000 });
    const id = await prepare({ checkAfterMs: 0 });
    await firstCheck();
    await until(
      'the check got no answer',
      async () => (await view(broker.url, id)).checks.unanswered > 0,
    );
    await answer(id, 'rollback');
    expect(await view(broker.url, id)).toMatchObject({
      state: 'rolledBack',
      checks: { unknown: 0 },
      decision: { by: 'check pull' },
    });
    await answer(id, 'rollback');
    await answer(id, 'commit');
    const { history, state } = await view(broker.url, id);
    expect(state).toBe('rolledBack');
    expect(history.map(({ event, detail }) => [event, detail.answer])).toEqual([
      ['check', 'none'],
      ['check', 'rollback'],
      ['conflict', 'commit'],
    ]);
  });

  test("answers for unknown ids, and for another group's, decide nothing", async () => {
    await registerGroup(broker.url, group, [], { ...POLICY, firstDelayMs: 60_000 });
    const id = await prepare();
    const owner = group;
    group = uniqueName('thieves');
    await registerGroup(broker.url, group, [], POLICY);
    await answer(id, 'commit');
    await answer('0198f3c2-7a10-7cc3-98c4-dc0c0c07398f', 'commit');
    group = owner;
    expect(await view(broker.url, id)).toMatchObject({ state: 'prepared', history: [] });
  });

  test('a caller who hangs up frees its place: the next poll gets the check', async () => {
    await registerGroup(broker.url, group, [], POLICY);
    const abort = new AbortController();
    const gone = request(`${broker.url}/v1/producer-groups/${group}/checks`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ waitMs: 30_000 }),
      signal: abort.signal,
    }).catch((error: Error) => error.name);
    // Another poll shows that the broker has seen the first, which came before it.
    await poll();
    abort.abort();
    expect(await gone).toBe('AbortError');
    await poll();
    const id = await prepare();
    expect((await firstCheck()).id).toBe(id);
    await answer(id, 'rollback');
  });

  test('a group with check URLs is asked by polls while somebody polls', async () => {
    const endpoint = await startCheckEndpoint();
    try {
      await registerGroup(broker.url, group, [endpoint.url], { ...POLICY, unknownMax: 1_000 });
      const waiting = firstCheck();
      await poll();
      const id = await prepare();
      await waiting;
      expect(endpoint.asked).toEqual([]);
      await answer(id, 'unknown');
      await until('it is called when nobody polls', () => endpoint.asked.length > 0);
      await call(`${broker.url}/v1/transactions/${id}/rollback`, 'POST');
    } finally {
      await endpoint.close();
    }
  });

  test('a shutdown answers polls at once, with nothing', async () => {
    await registerGroup(broker.url, group, [], POLICY);
    const waiting = poll({ waitMs: 30_000 });
    await poll();
    expect(await broker.stop()).toBe(0);
    expect(await waiting).toEqual([]);
    await broker.start();
  });
});

test('of several instances the one that is polled asks, and an answer at another decides', async () => {
  const store = await freshStore('mysql');
  const settings = { store: store.url, rabbitmq: rabbitmqUrl() };
  const [polled, other] = await Promise.all([
    startBrokerProcess(settings),
    startBrokerProcess(settings),
  ]);
  const group = uniqueName('accounts');
  const post = async (url: string, body: object) => (await call(url, 'POST', body)).body;
  const pollAt = (broker: BrokerProcess, body: object) =>
    post(`${broker.url}/v1/producer-groups/${group}/checks`, body);
  try {
    await registerGroup(polled.url, group, [], POLICY);
    const ids: string[] = [];
    for (let n = 0; n < 10; n += 1) {
      const waiting = pollAt(polled, { waitMs: 20_000, limit: 1 });
      const messages = [{ topic: uniqueName('user'), data: 1, ifUnrouted: 'drop' }];
      await post(`${other.url}/v1/transactions`, { producerGroup: group, messages });
      const { checks } = await waiting;
      ids.push(checks[0].id);
      // At the instance that has not asked.
      await pollAt(other, { answers: [{ id: checks[0].id, decision: 'commit' }] });
    }
    for (const id of ids) {
      const { decision, history, checks } = await view(polled.url, id);
      expect(decision).toMatchObject({ decision: 'commit', by: 'check pull' });
      expect(checks).toEqual({ unknown: 0, unanswered: 0 });
      expect(history[0]).toMatchObject({ event: 'check', detail: { late: true } });
    }
  } finally {
    await Promise.all([polled.stop(), other.stop()]);
    await store.remove();
  }
});
