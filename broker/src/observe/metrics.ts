import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { CounterName, RabbitStatus, StoreCounts } from '../domain/ports.js';
import type { StoreTime } from '../domain/transaction.js';

/*
 * Metrics for Prometheus. Counters are counted where things happen; gauges are read when somebody
 * scrapes. The store is asked at most once per cache time however many scrape, and a store that
 * does not answer costs the scrape its gauges and nothing else: a missing value is honest, an old
 * one is not.
 */

export interface Metrics {
  /**
   * Adds to a counter. Label names are written in snake_case; those outside of the list are left
   * out, and the sum stays right. Values must be few: ids have no place here.
   */
  count(counter: CounterName, labels?: Record<string, string>, by?: number): void;
  /** The page that Prometheus reads. Never rejects. */
  scrape(): Promise<{ contentType: string; body: string }>;
}

export interface MetricsSources {
  /** Reads the store; may reject. */
  readStore?(): Promise<{ counts: StoreCounts; now: StoreTime } | undefined>;
  /** Bounded in time. @default whether `readStore` has answered */
  storeUsable?(): Promise<boolean>;
  readRabbit?(): { status: RabbitStatus; room: number; receiptsConsumed?: boolean };
  /** Monotonic milliseconds. @default performance.now */
  now?(): number;
}

/** Several Prometheus servers scrape every 15 s or so; the counts cost the store an index scan. */
const STORE_CACHE_MS = 5_000;

/** Prometheus gives up after 10 s by default; without the store's gauges it still gets the rest. */
const STORE_WAIT_MS_MAX = 3_000;

/** Beyond it a counter's labels are counted as "other", so that no mistake fills the memory. */
const LABEL_SETS_PER_COUNTER_MAX = 500;

const LABEL_NAMES = [
  'action',
  'by',
  'decided_by',
  'decision',
  'kind',
  'outcome',
  'reason',
  'result',
  'source',
  'state',
  'status',
  'webhook',
];

/** @example createMetrics({ readRabbit: () => ({ status: publisher.status, room: publisher.room }) }) */
export function createMetrics(sources: MetricsSources = {}): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const { counters, publishCounts } = createCounters(registry);
  const updateStore = createStoreGauges(registry, sources);
  const updateRabbit = createRabbitGauges(registry, sources);
  return {
    count(counter, labels = {}, by = 1) {
      counters[counter](labels, by);
    },
    async scrape() {
      updateRabbit();
      await updateStore();
      publishCounts();
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}

type Labels = Readonly<Record<string, string>>;
type Count = (labels: Labels, by: number) => void;

/** What was counted under one set of labels since the last scrape. */
interface Tally {
  labels: Record<string, string>;
  count: number;
}

interface Counters {
  counters: Record<CounterName, Count>;
  /** Hands what was counted to the page. */
  publishCounts(): void;
}

/**
 * Counted in plain numbers and handed over at a scrape: the library's own counter sorts and joins
 * its labels at every call, 7 µs for the five counts of one transaction.
 */
function createCounters(registry: Registry): Counters {
  const handOver: (() => void)[] = [];
  const create = (name: string, help: string): Count => {
    const counter = new Counter({ name, help, labelNames: LABEL_NAMES, registers: [registry] });
    const tallies = new Map<string, Tally>();
    const handThisOver = () => {
      for (const { labels, count } of tallies.values()) counter.inc(labels, count);
      tallies.clear();
    };
    handOver.push(handThisOver);
    const seen = new Set<string>();

    /** Only labels of the list, and few of them. */
    function tallyOf(given: Labels): Tally {
      let labels = knownLabels(given);
      const known = JSON.stringify(labels);
      if (!seen.has(known)) {
        if (seen.size < LABEL_SETS_PER_COUNTER_MAX) seen.add(known);
        else labels = Object.fromEntries(Object.keys(labels).map((label) => [label, 'other']));
      }
      return { labels, count: 0 };
    }

    return (given, by) => {
      let key = '';
      for (const label in given) key += `${label}\0${given[label]}\0`;
      let tally = tallies.get(key);
      if (tally === undefined) {
        // Labels that are left out make many keys of one set.
        if (tallies.size >= LABEL_SETS_PER_COUNTER_MAX) handThisOver();
        tally = tallyOf(given);
        tallies.set(key, tally);
      }
      tally.count += by;
    };
  };
  const counters = {
    transactionsAccepted: create(
      'escrow_transactions_accepted_total',
      'Transactions made durable by a prepare or a plain send, repeats not counted',
    ),
    verdicts: create('escrow_verdicts_total', 'Decisions that moved a transaction'),
    verdictConflicts: create(
      'escrow_verdict_conflicts_total',
      'Verdicts refused because the other decision was on record',
    ),
    checks: create('escrow_checks_total', 'Checks put to producer groups'),
    publishes: create('escrow_publishes_total', 'Messages published to RabbitMQ'),
    alerts: create('escrow_alerts_total', 'Alerts raised for an operator'),
    receipts: create('escrow_receipts_total', 'Receipts of consumer groups'),
    lateReceipts: create(
      'escrow_late_receipts_total',
      'Receipts for transactions that are gone or closed, by kind and reason',
    ),
    compensations: create('escrow_compensations_total', 'Calls to producer groups to compensate'),
    webhookCalls: create(
      'escrow_webhook_calls_total',
      'Messages of webhooks by what became of them: delivered, failed, postponed, gaveUp',
    ),
    purged: create('escrow_purged_total', 'Finished transactions deleted by retention'),
    failures: create(
      'escrow_failures_total',
      'What failed and is tried again, by code of the error; each is counted, the log tells some',
    ),
  };
  return {
    counters,
    publishCounts() {
      for (const hand of handOver) hand();
    },
  };
}

function knownLabels(given: Labels): Record<string, string> {
  const snake = Object.entries(given).map(([name, value]): [string, string] => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    value,
  ]);
  return Object.fromEntries(snake.filter(([name]) => LABEL_NAMES.includes(name)).sort());
}

function createRabbitGauges(registry: Registry, { readRabbit }: MetricsSources): () => void {
  if (readRabbit === undefined) return () => undefined;
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers: [registry] });
  const connected = gauge('escrow_rabbitmq_connected', '1 while RabbitMQ is connected');
  const blocked = gauge('escrow_rabbitmq_blocked', '1 while RabbitMQ takes no publishes (alarm)');
  const receipts = gauge('escrow_receipts_consumed', "1 while consumers' receipts are taken");
  const publishRoom = gauge('escrow_publish_room', 'Messages the publish window takes now');
  return () => {
    const { status, room, receiptsConsumed = true } = readRabbit();
    receipts.set(receiptsConsumed ? 1 : 0);
    connected.set(status === 'disconnected' ? 0 : 1);
    blocked.set(status === 'blocked' ? 1 : 0);
    publishRoom.set(room);
  };
}

function createStoreGauges(registry: Registry, sources: MetricsSources): () => Promise<void> {
  const { readStore, storeUsable, now = () => performance.now() } = sources;
  if (readStore === undefined) return async () => undefined;
  const registers = [registry];
  const transactions = new Gauge({
    name: 'escrow_transactions',
    help: 'Transactions in the store by state',
    labelNames: ['state'],
    registers,
  });
  const oldestOpen = new Gauge({
    name: 'escrow_oldest_open_age_seconds',
    help: 'Age of the oldest transaction that is not finished; 0 when nothing is open',
    registers,
  });
  const compensationsOwed = new Gauge({
    name: 'escrow_compensations_owed',
    help: 'Compensations that no producer has acknowledged yet',
    registers,
  });
  const reachable = new Gauge({
    name: 'escrow_store_reachable',
    help: '1 when the store can be read and written',
    registers,
  });
  // Async, so that a reader that throws is one that rejects.
  const ask = async () => readStore();
  let readAt: number | undefined;
  let reading: Promise<void> | undefined;

  async function read(): Promise<void> {
    const found = await withinTime(ask);
    transactions.reset();
    oldestOpen.remove();
    compensationsOwed.remove();
    if (storeUsable === undefined) reachable.set(found === undefined ? 0 : 1);
    if (found === undefined) return;
    const { counts, now: storeNow } = found;
    for (const [state, count] of Object.entries(counts.byState)) transactions.set({ state }, count);
    compensationsOwed.set(counts.compensationsOwed);
    const { oldestOpenAt } = counts;
    oldestOpen.set(oldestOpenAt === undefined ? 0 : Math.max(0, storeNow - oldestOpenAt) / 1000);
  }

  return async () => {
    if (storeUsable !== undefined) reachable.set((await storeUsable()) ? 1 : 0);
    if (readAt !== undefined && now() - readAt < STORE_CACHE_MS) return;
    reading ??= read().finally(() => {
      readAt = now();
      reading = undefined;
    });
    await reading;
  };
}

/** The value, or undefined when it is rejected or late. Whether the store works shows as a gauge. */
async function withinTime<T>(ask: () => Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), STORE_WAIT_MS_MAX);
  });
  try {
    return await Promise.race([ask().catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}
