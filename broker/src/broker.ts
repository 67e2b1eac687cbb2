import { EscrowError, receiptsQueueName } from '@escrowmq/protocol';
import { V7Generator } from 'uuidv7';
import { createAsker } from './callback/asker.js';
import { createCallbackPolicy } from './callback/callback-policy.js';
import { createCompensationCaller } from './callback/compensation-caller.js';
import { newSigningSecret } from './callback/signature.js';
import type { Config } from './config.js';
import type { Observer, Store, StoreCounts } from './domain/ports.js';
import { byProducer, type StoreTime } from './domain/transaction.js';
import { createCancel } from './engine/cancel.js';
import { createCheckPolls } from './engine/check-polls.js';
import { createChecker } from './engine/checker.js';
import { createCompensator } from './engine/compensator.js';
import { createForwarder } from './engine/forwarder.js';
import { createHeldTransactions } from './engine/held-transactions.js';
import { createIntake } from './engine/intake.js';
import { createLateReceipts } from './engine/late-receipts.js';
import { startLoop } from './engine/loop.js';
import { createResolve } from './engine/operator.js';
import { createProducerGroups } from './engine/producer-groups.js';
import { createSettlementWaits } from './engine/settlement-waits.js';
import { createStoreClock } from './engine/store-clock.js';
import { type Api, openFrontDoor } from './front-door.js';
import { startHeartbeat } from './heartbeat.js';
import { startHousekeeping } from './housekeeping.js';
import type { Log } from './observe/log.js';
import { createMetrics } from './observe/metrics.js';
import { createObserver } from './observe/observer.js';
import { openRabbit, type Rabbit } from './rabbit/open-rabbit.js';
import { createReadiness } from './readiness.js';
import { openStoreWhenThere } from './store-at-start.js';
import { createStoreStanding, type StoreStanding } from './store-standing.js';
import { startWebhooks } from './webhooks.js';

/** How soon what became due is seen; a commit is forwarded at once and waits for no loop. */
const LOOP_IDLE_MS = 250;
/** Two quartz clocks drift apart by less than a millisecond in this time. */
const CLOCK_SYNC_MS = 10_000;

export interface Broker {
  /** Where it serves, such as http://127.0.0.1:7171 */
  address: string;
  /** Ends in order: requests, passes, what is in hand, connections. */
  stop(): Promise<void>;
}

/**
 * In three steps: the probes, which answer from the first moment on; the store, which may be long in
 * coming; and everything that works on it.
 */
export async function startBroker(config: Config, log: Log): Promise<Broker> {
  const standing = createStoreStanding(() => observer);
  let engine: Engine | undefined;
  const rabbit = () => engine?.rabbit ?? NO_RABBIT_YET;
  const metrics = createMetrics({
    readStore: async () => engine?.readStore(),
    storeUsable: async () => (await standing.trouble()) === undefined,
    readRabbit: () => {
      const { status, room, problems } = rabbit();
      return { status, room, receiptsConsumed: problems.receipts === undefined };
    },
  });
  const observer = createObserver(log, metrics);
  const readiness = createReadiness({
    store: standing,
    rabbit,
  });
  const probes = { readiness: readiness.read, metrics: metrics.scrape, observer };
  const door = await openFrontDoor(config, { ...probes, standing });
  try {
    const store = await openStoreWhenThere(config.storeUrl, { standing, observer });
    for (const caveat of await store.caveats(config)) observer.warn(caveat, {}, caveat);
    engine = await startEngine(config, { store, standing, observer });
  } catch (error) {
    await door.close();
    throw error;
  }
  const { api, stop } = engine;
  door.serve(api);
  return {
    address: door.address,
    async stop() {
      // Load balancers see it first; then no request comes in.
      readiness.stopping();
      await door.close();
      await stop();
    },
  };
}

/** Its connection is opened behind the store, whose id names the queue of receipts. */
const NO_RABBIT_YET: Engine['rabbit'] = { status: 'disconnected', room: 0, problems: {} };

/** Everything that works on an open store. */
interface Engine {
  api: Api;
  readStore(): Promise<{ counts: StoreCounts; now: StoreTime }>;
  rabbit: Pick<Rabbit, 'status' | 'room' | 'problems'>;
  /** Ends in order: passes, what is in hand, connections. */
  stop(): Promise<void>;
}

/** The wiring, top to bottom: the only place that knows every part. */
async function startEngine(
  config: Config,
  { store, standing, observer }: { store: Store; standing: StoreStanding; observer: Observer },
): Promise<Engine> {
  const clock = await createStoreClock(store);
  const receiptsQueue = receiptsQueueName(store.id);
  const rabbit = openRabbit({ url: config.rabbitmqUrl, observer });

  const callbackPolicy = createCallbackPolicy({
    allow: config.callbackAllow,
    loopbackAllowed: config.onLoopback,
  });
  const callerOptions = { allow: callbackPolicy, observer, storeNow: () => clock.now() };
  const asker = createAsker({
    ...callerOptions,
    answerBytesMax: config.transactionBytesMax,
  });
  const compensationCaller = createCompensationCaller(callerOptions);
  const groups = createProducerGroups({
    store,
    checkUrlProblem: (url) => callbackPolicy.checkUrlProblem(url),
    newSigningSecret,
    observer,
  });

  const held = createHeldTransactions(config.heldBytesMax);
  const forwarder = createForwarder({
    store,
    publisher: rabbit,
    held,
    clock,
    policy: { undeliverableAttemptsMax: config.undeliverableAttemptsMax },
    receiptsQueue,
    observer,
  });
  // By the store's clock: this machine's may be hours off, and an id from the future is refused.
  const ids = new V7Generator();
  const intake = createIntake({
    store,
    clock,
    groups,
    held,
    forwarder,
    newId: () => ids.generateOrResetWithTs(clock.now()).toString(),
    observer,
  });
  const checkPolls = createCheckPolls({
    calls: asker,
    findGroup: groups.find,
    takeLate: (producerGroup, answer) => checker.takeLate(producerGroup, answer),
    wake: () => checkLoop.wake(),
  });
  const checker = createChecker({
    store,
    asker: checkPolls,
    findGroup: groups.find,
    decide: intake.decide,
    transactionBytesMax: config.transactionBytesMax,
    clock,
    random: Math.random,
    observer,
  });
  const compensator = createCompensator({
    store,
    caller: compensationCaller,
    // Not what was read a while ago: another instance may just have registered the first endpoint.
    findGroup: (name) => store.findGroup(name),
    clock,
    random: Math.random,
    observer,
  });
  const settlements = createSettlementWaits({ store, observer });

  const forwardLoop = startLoop({
    name: 'forward what is due',
    pass: async () => (await forwarder.recoverOnce()) > 0,
    idleMs: LOOP_IDLE_MS,
    observer,
  });
  const checkLoop = startLoop({
    name: 'check what is due',
    pass: async () => (await checkPolls.duringPass(() => checker.checkOnce())) > 0,
    idleMs: LOOP_IDLE_MS,
    observer,
  });
  const compensationLoop = startLoop({
    name: 'compensate what is due',
    pass: async () => (await compensator.compensateOnce()) > 0,
    idleMs: LOOP_IDLE_MS,
    observer,
  });
  const clockLoop = startLoop({
    name: 'read the clock of the store',
    // Seen by the log as well when nobody asks for it: a store that can be read and not written.
    pass: async () => {
      await clock.sync();
      const trouble = await standing.trouble();
      if (trouble !== undefined) throw new EscrowError('STORE_UNAVAILABLE', trouble);
      return false;
    },
    idleMs: CLOCK_SYNC_MS,
    observer,
  });
  const lateReceipts = createLateReceipts({ observer, now: () => performance.now() });
  rabbit.onReady(() => forwardLoop.wake());
  rabbit.consumeReceipts(receiptsQueue, async (receipts) => {
    const { late } = await compensator.takeReceipts(receipts);
    lateReceipts.tell(late);
    observer.count('receipts', {}, receipts.length);
  });
  const heartbeat = startHeartbeat({ store, observer });
  const housekeeping = startHousekeeping({ config, store, observer });
  const webhooks = startWebhooks({
    store,
    rabbitmqUrl: config.rabbitmqUrl,
    rabbit,
    callbackPolicy,
    clock,
    observer,
  });

  return {
    api: {
      prepare: intake.prepare,
      send: intake.send,
      decide: ({ id, decision, producerGroup, messageData }) => {
        const supplied =
          messageData === undefined
            ? undefined
            : { data: messageData, bytesMax: config.transactionBytesMax };
        return intake.decide({ id, decision, decidedBy: byProducer, producerGroup, supplied });
      },
      resolve: createResolve({
        store,
        decide: intake.decide,
        clock,
        wake: () => {
          forwardLoop.wake();
          checkLoop.wake();
        },
      }),
      cancel: createCancel({ store }),
      view: (id) => store.view(id),
      search: (query) => store.search(query),
      registerGroup: groups.register,
      findGroup: groups.describe,
      waitForBusinessKey: (businessKey, waitMs, producerGroup, signal) =>
        settlements.forBusinessKey({ businessKey, waitMs, producerGroup, signal }),
      waitForTransaction: (id, waitMs, signal) =>
        settlements.forTransaction({ id, waitMs, signal }),
      pollChecks: checkPolls.poll,
      ...webhooks.api,
    },
    readStore: async () => ({ counts: await store.counts(), now: clock.now() }),
    rabbit,
    async stop() {
      // No pass begins, and what is in hand ends before the connections that it needs.
      await Promise.all([
        housekeeping.stop(),
        webhooks.stop(),
        checkLoop.stop(),
        compensationLoop.stop(),
        forwardLoop.stop(),
        clockLoop.stop(),
      ]);
      checkPolls.close();
      await Promise.all([asker.close(), compensationCaller.close()]);
      await checker.idle();
      await compensator.idle();
      await intake.idle();
      // A key with a long line would keep it from being idle, message by message.
      forwarder.stop();
      await forwarder.idle();
      await rabbit.close();
      await heartbeat.stop();
      await store.close();
    },
  };
}
