import { expect, test } from '@jest/globals';
import type { StoreCounts } from '../../broker/src/domain/ports.js';
import { createMetrics } from '../../broker/src/observe/metrics.js';

const COUNTS: StoreCounts = {
  byState: { prepared: 1, committed: 2, forwarded: 3, rolledBack: 4, parked: 5 },
  purged: { forwarded: 6, rolledBack: 7 },
  compensationsOwed: 2,
  oldestOpenAt: 1_000,
};

/** The samples of our own metrics, by name and labels. */
async function samples(metrics: ReturnType<typeof createMetrics>) {
  const { body } = await metrics.scrape();
  const lines = body.split('\n').filter((line) => line.startsWith('escrow_'));
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}

test('the page has counters from zero, the gauges and the process metrics', async () => {
  const metrics = createMetrics({
    readStore: async () => ({ counts: COUNTS, now: 61_000 }),
    readRabbit: () => ({ status: 'blocked', room: 17 }),
  });
  metrics.count('transactionsAccepted');
  metrics.count('transactionsAccepted', {}, 4);
  expect(await samples(metrics)).toMatchObject({
    escrow_transactions_accepted_total: 5,
    'escrow_transactions{state="prepared"}': 1,
    'escrow_transactions{state="parked"}': 5,
    escrow_oldest_open_age_seconds: 60,
    escrow_compensations_owed: 2,
    escrow_store_reachable: 1,
    escrow_rabbitmq_connected: 1,
    escrow_rabbitmq_blocked: 1,
    escrow_publish_room: 17,
  });
  const { body, contentType } = await metrics.scrape();
  expect(body).toContain('process_cpu_seconds_total');
  expect(body).toContain('nodejs_eventloop_lag_seconds');
  expect(contentType).toContain('text/plain');
});

test('every counter is on the page before it has counted', async () => {
  const { body } = await createMetrics().scrape();
  for (const name of [
    'transactions_accepted',
    'verdicts',
    'verdict_conflicts',
    'checks',
    'publishes',
    'alerts',
    'receipts',
    'purged',
    'failures',
  ]) {
    expect(body).toContain(`# TYPE escrow_${name}_total counter`);
  }
});

test('nothing open has an age of zero', async () => {
  const { oldestOpenAt: _, ...counts } = COUNTS;
  const metrics = createMetrics({ readStore: async () => ({ counts, now: 61_000 }) });
  expect(await samples(metrics)).toMatchObject({ escrow_oldest_open_age_seconds: 0 });
});

test('the store is read once for many scrapes in five seconds', async () => {
  let time = 0;
  let reads = 0;
  const readStore = async () => {
    reads += 1;
    return { counts: COUNTS, now: 61_000 };
  };
  const metrics = createMetrics({ readStore, now: () => time });
  await Promise.all([metrics.scrape(), metrics.scrape(), metrics.scrape()]);
  time = 4_999;
  await metrics.scrape();
  expect(reads).toBe(1);
  time = 5_000;
  await metrics.scrape();
  expect(reads).toBe(2);
});

test.each<[string, () => Promise<never>]>([
  ['rejects', () => Promise.reject(new Error('away'))],
  [
    'throws',
    () => {
      throw new Error('away');
    },
  ],
])('when the store %s, its gauges go missing and the rest of the page stays', async (_, fail) => {
  let time = 0;
  let away = false;
  const metrics = createMetrics({
    now: () => time,
    readStore: () => (away ? fail() : Promise.resolve({ counts: COUNTS, now: 61_000 })),
    readRabbit: () => ({ status: 'connected', room: 1 }),
  });
  expect(await samples(metrics)).toHaveProperty(['escrow_oldest_open_age_seconds']);
  away = true;
  time = 10_000;
  const page = await samples(metrics);
  expect(Object.keys(page).filter((name) => /^escrow_(transactions\{|oldest)/.test(name))).toEqual(
    [],
  );
  expect(page).toMatchObject({ escrow_store_reachable: 0, escrow_rabbitmq_connected: 1 });
});

test('a label name that is not on the list is left out, and the sum stays right', async () => {
  const metrics = createMetrics();
  metrics.count('checks', { outcome: 'answered', transactionId: 'a' });
  metrics.count('checks', { outcome: 'answered', transactionId: 'b' });
  metrics.count('verdicts', { decidedBy: 'check' });
  const page = await samples(metrics);
  expect(page).toMatchObject({
    'escrow_checks_total{outcome="answered"}': 2,
    'escrow_verdicts_total{decided_by="check"}': 1,
  });
});

test('label values without end are counted as other', async () => {
  const metrics = createMetrics();
  for (let n = 0; n < 2_000; n += 1) metrics.count('alerts', { reason: `r${n}` });
  const page = await samples(metrics);
  const alerts = Object.entries(page).filter(([name]) => name.startsWith('escrow_alerts_total'));
  expect(alerts).toHaveLength(501);
  expect(page['escrow_alerts_total{reason="other"}']).toBe(1_500);
});
