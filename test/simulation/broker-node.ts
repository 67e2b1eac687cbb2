import type { CheckRequest } from '@escrowmq/protocol';
import type { CheckOutcome, Observer, ProducerGroup } from '../../broker/src/domain/ports.js';
import { byProducer } from '../../broker/src/domain/transaction.js';
import { createChecker } from '../../broker/src/engine/checker.js';
import { createForwarder } from '../../broker/src/engine/forwarder.js';
import { createHeldTransactions } from '../../broker/src/engine/held-transactions.js';
import { createIntake, type Intake } from '../../broker/src/engine/intake.js';
import { startLoop } from '../../broker/src/engine/loop.js';
import { createProducerGroups } from '../../broker/src/engine/producer-groups.js';
import { createStoreClock } from '../../broker/src/engine/store-clock.js';
import { batchRoutes } from '../../broker/src/http/batch.js';
import type { MemoryRabbit } from './memory-rabbit.js';
import type { StorePort } from './memory-store.js';
import type { Process, Scheduler } from './scheduler.js';

/**
 * One life of a broker instance: the shipped engine, wired as broker.ts wires it, over the ports of the
 * simulation. A crash ends it, with all it had in memory; the next life begins anew on the same store.
 */
export interface BrokerNode {
  /** The body of a `POST /v1/batch`; resolves with the body of its answer. */
  batch(body: string): Promise<string>;
  /** Ends the pauses of its loops, as an operator's word does. */
  wake(): void;
}

export interface BrokerOptions {
  scheduler: Scheduler;
  process: Process;
  store: StorePort;
  publisher: ReturnType<MemoryRabbit['connect']>;
  ask(group: ProducerGroup, request: CheckRequest): Promise<CheckOutcome>;
  /** Pause of the loops between two passes. */
  idleMs: number;
}

/** Mostly all half messages are kept in memory until their verdict, sometimes none is. */
const HELD_BYTES_CHOICES = [1_000_000, 1_000_000, 1_000_000, 1] as const;
const CLOCK_SYNC_MS = 60_000;
/** With the back-off of the forwarder an hour, in which everything heals. */
const PARKED_AFTER_ROUNDS = 20;
const TRANSACTION_BYTES_MAX = 1_000_000;

/** Resolves when it takes requests. */
export async function startBroker(options: BrokerOptions): Promise<BrokerNode> {
  const { scheduler, store, publisher, idleMs } = options;
  const heldBytesMax = scheduler.random.pick(HELD_BYTES_CHOICES);
  const observer = observerOf(options);
  const clock = await createStoreClock(store);
  const groups = createProducerGroups({
    store: { findGroup: store.findGroup, saveGroup: unused('saveGroup') },
    checkUrlProblem: () => undefined,
    newSigningSecret: unused('newSigningSecret'),
    observer,
  });
  const held = createHeldTransactions(heldBytesMax);
  const policy = { undeliverableAttemptsMax: PARKED_AFTER_ROUNDS };
  const receiptsQueue = 'receipts';
  const forwarder = createForwarder({
    ...{ store, publisher, held, clock, policy, receiptsQueue, observer },
  });
  const newId = unused('newId');
  const intake = createIntake({ store, clock, groups, held, forwarder, newId, observer });
  const checker = createChecker({
    store,
    asker: {
      ask: options.ask,
      roomFor: () => Number.POSITIVE_INFINITY,
      busyGroups: () => [],
      unpolled: () => [],
    },
    findGroup: groups.find,
    decide: intake.decide,
    transactionBytesMax: TRANSACTION_BYTES_MAX,
    clock,
    random: Math.random,
    observer,
  });
  const forwardLoop = startLoop({
    name: 'forward what is due',
    pass: async () => (await forwarder.recoverOnce()) > 0,
    idleMs,
    observer,
  });
  const checkLoop = startLoop({
    name: 'check what is due',
    pass: async () => (await checker.checkOnce()) > 0,
    idleMs,
    observer,
  });
  startLoop({
    name: 'read the clock of the store',
    pass: async () => clock.sync().then(() => false),
    idleMs: CLOCK_SYNC_MS,
    observer,
  });
  publisher.onReady = () => forwardLoop.wake();
  return {
    batch: batchEndpoint(intake, observer),
    wake() {
      forwardLoop.wake();
      checkLoop.wake();
    },
  };
}

/** The shipped route, without the server in front of it. */
function batchEndpoint(intake: Intake, observer: Observer): BrokerNode['batch'] {
  const [route] = batchRoutes(
    {
      prepare: intake.prepare,
      send: intake.send,
      decide: ({ id, decision, producerGroup }) =>
        intake.decide({ id, decision, decidedBy: byProducer, producerGroup }),
      observer,
    },
    { batchBytesMax: TRANSACTION_BYTES_MAX, transactionBytesMax: TRANSACTION_BYTES_MAX },
  );
  if (route === undefined) throw new Error('the broker has no route for batches');
  return async (body) => {
    const answer = await route.handle({
      params: {},
      query: {},
      body: JSON.parse(body) as unknown,
      headers: { 'content-length': String(body.length) },
      caller: { role: 'anyone' },
      untilGone: unused('untilGone'),
    });
    return JSON.stringify(answer.body);
  };
}

function observerOf({ scheduler, process }: BrokerOptions): Observer {
  return {
    alert: (alert) => scheduler.note(process, `ALERT ${JSON.stringify(alert)}`),
    failed: (what, error) => scheduler.note(process, `failed: ${what}: ${error}`),
    warn: (what, facts) => scheduler.note(process, `${what} ${JSON.stringify(facts)}`),
    recovered: (what) => scheduler.note(process, `recovered: ${what}`),
    info: (what, facts) => scheduler.note(process, `${what} ${JSON.stringify(facts)}`),
    count: () => {},
  };
}

function unused(name: string): () => never {
  return () => {
    throw new Error(`${name} is not part of the simulation`);
  };
}
