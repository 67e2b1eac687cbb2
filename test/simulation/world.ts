import { isEscrowError } from '@escrowmq/protocol';
import type { Released } from '../../producer-sdk/src/local/telling.js';
import { type BrokerNode, startBroker } from './broker-node.js';
import { startConsumer } from './consumer-node.js';
import { Faults } from './faults.js';
import { MemoryDatabase } from './memory-database.js';
import { MemoryRabbit } from './memory-rabbit.js';
import { createMemoryStore, type MemoryStore } from './memory-store.js';
import { type Mistakes, NO_MISTAKES } from './mistakes.js';
import { type PlannedTransaction, plannedGroup, plannedTransactions } from './plan.js';
import { createProducerNode, type ProducerNode } from './producer-node.js';
import { type Outcome, Properties } from './properties.js';
import { Process, Scheduler } from './scheduler.js';
import { storePort } from './store-port.js';
import { beginRun, drive, virtualNow } from './virtual-time.js';
import { askProducer, brokerHttp, type Endpoint, type Wire } from './wire.js';

/**
 * A whole EscrowMQ in one thread: one to three transactions through brokers, a producer of two
 * instances, RabbitMQ and a consumer, in an order and with faults that a seed decides.
 *
 * What is real: everything that decides. The SDK from `runTransaction` down: the local transaction, the
 * barrier, what settles an ambiguous COMMIT, the check decider, the coalescer and repeats of its
 * operations. The broker from the route for batches down: intake, held transactions, forwarder, checker,
 * loops, the cache of groups, the clock, the domain. The consumer's `once`. All of it is the shipped
 * build, imported and not copied.
 *
 * What is simulated: what they reach through their ports. The store (memory-store.ts), the services'
 * own databases (memory-database.ts), RabbitMQ (memory-rabbit.ts), the network (wire.ts), and time, in
 * which timers, `Date.now` and `setImmediate` are the scheduler's (virtual-time.ts).
 *
 * What is not here: SQL and drivers, AMQP frames, HTTP sockets, delays, ordering keys, compensations and
 * webhooks. The contract of the stores, the tests against real servers and the soak have those. What is
 * here is what those can not give: orders of events that a real machine shows once in a million runs,
 * each of them as likely as any other, and repeatable.
 *
 * Why that is enough for the orders: two pieces of code see each other only through a port, so it makes
 * no difference what one of them does between two calls. Each call at a port is a step, most are two
 * (it happens; its answer arrives), and before every step any other that can run may come first,
 * including a crash, a pause, and the end of a time limit. A run ends when all faults have been spent and
 * nothing is under way; then properties.ts judges what is durable. It is a pure function of its seed.
 */
export interface RunOptions {
  seed: number;
  mistakes?: Mistakes;
  /** Keeps a line for each step. */
  isTraced?: boolean;
}

export interface RunResult {
  seed: number;
  /** What is broken, in sentences; empty for a good run. */
  violations: string[];
  faults: string[];
  steps: number;
  virtualMs: number;
  /** Equal for two runs that did the same. */
  fingerprint: string;
  trace: string[];
}

interface Life<Node> {
  process: Process;
  /** Absent until it is ready. */
  node: Node | undefined;
}

/** Longer than every back-off and lease together: what is open then, will be for ever. */
const VIRTUAL_MS_MAX = 2 * 60 * 60 * 1000;
/** Fifty times as many as a run with all of its faults takes. */
const STEPS_MAX = 50_000;

/** Slow steps in one run, and their share of the steps until then. */
const SLOW_STEPS_MAX = 6;
const SLOW_SHARE_MAX = 0.2;
const LOOP_IDLE_MS = [5_000, 20_000] as const;
const STORE_AHEAD_MS = [0, 0, -40_000, 40_000] as const;
/** A process that is down or stands still for that long: not at all, within limits, past leases. */
const AWAY_MS = [0, 700, 6_000, 50_000] as const;
/** Passes begun out of turn, and their share of the steps. */
const WAKES_MAX = 8;
const WAKE_SHARE = 0.08;
/** A crash or a pause could strike at every step, other faults only at their places. */
const STOP_WEIGHT = 0.15;

class World {
  readonly #scheduler: Scheduler;
  readonly #server = new Process('world');
  readonly #faults: Faults;
  readonly #wire: Wire;
  readonly #store: MemoryStore;
  readonly #rabbit: MemoryRabbit;
  readonly #producerDatabase: MemoryDatabase;
  readonly #consumerDatabase: MemoryDatabase;
  readonly #properties: Properties;
  readonly #mistakes: Mistakes;
  readonly #brokers: Life<BrokerNode>[] = [];
  readonly #producers: Life<ProducerNode>[] = [];
  #consumer = new Process('consumer');
  readonly #loopIdleMs: number;
  #wakesLeft: number;

  constructor({ seed, mistakes = NO_MISTAKES, isTraced = false }: RunOptions) {
    const server = this.#server;
    const scheduler = new Scheduler(seed, { world: server, isTraced });
    beginRun(scheduler);
    const { random } = scheduler;
    scheduler.slowLeft = random.below(SLOW_STEPS_MAX + 1);
    scheduler.slowShare = random.next() * SLOW_SHARE_MAX;
    const faults = new Faults(scheduler, server);
    const on = { scheduler, faults, server };
    this.#scheduler = scheduler;
    this.#faults = faults;
    this.#wire = on;
    this.#mistakes = mistakes;
    this.#loopIdleMs = random.pick(LOOP_IDLE_MS);
    this.#wakesLeft = random.below(WAKES_MAX + 1);
    const aheadMs = random.pick(STORE_AHEAD_MS);
    this.#store = createMemoryStore({
      now: () => virtualNow() + aheadMs,
      groups: [plannedGroup(random)],
      guardsVerdicts: !mistakes.unguardedVerdict,
      onMove: (row, to) => this.#properties.onMove(row, to),
    });
    this.#producerDatabase = new MemoryDatabase(on);
    this.#consumerDatabase = new MemoryDatabase(on);
    this.#rabbit = new MemoryRabbit({
      ...on,
      onArrival: ({ messageId, body }) => this.#properties.onArrival(messageId, body.toString()),
      onTwiceInFlight: ({ name }, messageId) =>
        this.#properties.broken(`${name} has ${messageId} in flight twice`),
      confirmsAtOnce: mistakes.marksBeforeConfirm,
    });
    this.#properties = new Properties({
      store: this.#store,
      producer: this.#producerDatabase,
      consumer: this.#consumerDatabase,
      planned: plannedTransactions(random),
    });
  }

  async run(): Promise<RunResult> {
    const { random } = this.#scheduler;
    const brokers = 1 + random.below(2);
    for (let number = 0; number < brokers; number += 1) this.#startBroker(number);
    for (let number = 0; number < 2; number += 1) this.#startProducer(number);
    this.#startConsumer(this.#consumer);
    const [first] = this.#producers;
    if (first === undefined) throw new Error('there is no producer');
    for (const planned of this.#properties.planned) this.#begin(first, planned);
    await drive(this.#scheduler, () => this.#isOver());
    return this.#result();
  }

  #result(): RunResult {
    const { stepsDone, nowMs, random, trace = [] } = this.#scheduler;
    if (nowMs > VIRTUAL_MS_MAX || stepsDone > STEPS_MAX) {
      this.#properties.broken(`not quiet after ${nowMs / 1000} s and ${stepsDone} steps`);
    }
    return {
      seed: 0,
      violations: this.#properties.judge(),
      faults: this.#faults.struck,
      steps: stepsDone,
      virtualMs: nowMs,
      fingerprint: `${random.state} ${stepsDone} ${nowMs}`,
      trace,
    };
  }

  /** Also where what strikes at any time strikes. */
  #isOver(): boolean {
    const { random, stepsDone, nowMs, isIdle } = this.#scheduler;
    if (stepsDone > STEPS_MAX || nowMs > VIRTUAL_MS_MAX) return true;
    if (isIdle) return this.#isQuiet();
    if (this.#faults.strike('a process stops', STOP_WEIGHT)) this.#stopOne();
    if (this.#wakesLeft > 0 && random.chance(WAKE_SHARE)) {
      this.#wakesLeft -= 1;
      const { process, node } = this.#brokers[random.below(this.#brokers.length)] ?? {};
      if (node !== undefined && process !== undefined) {
        this.#as(process, 'its loops are woken', () => node.wake());
      }
    }
    return false;
  }

  #isQuiet(): boolean {
    return (
      this.#rabbit.queue.size === 0 &&
      this.#properties.isSettled() &&
      !this.#producerDatabase.hasOpen &&
      !this.#consumerDatabase.hasOpen &&
      this.#producers.every(({ node }) => node?.underWay === 0) &&
      this.#brokers.every(({ node }) => node !== undefined)
    );
  }

  #stopOne(): void {
    const { random } = this.#scheduler;
    const lives = [...this.#brokers, ...this.#producers, { process: this.#consumer }];
    const { process } = lives[random.below(lives.length)] ?? {};
    if (process === undefined || !process.isAlive) return;
    const awayMs = random.pick(AWAY_MS);
    if (random.chance(0.4)) {
      this.#scheduler.note(process, `stands still for ${awayMs} ms`);
      process.pausedUntilMs = this.#scheduler.nowMs + awayMs;
      return;
    }
    this.#scheduler.note(process, `CRASHES, for ${awayMs} ms`);
    this.#scheduler.crash(process);
    this.#producerDatabase.dropConnectionsOf(process);
    this.#consumerDatabase.dropConnectionsOf(process);
    const run = () => this.#restart(process);
    this.#scheduler.after(this.#server, awayMs, { name: `${process.name} starts again`, run });
  }

  #restart(crashed: Process): void {
    const isCrashed = ({ process }: { process: Process }) => process === crashed;
    if (this.#brokers.some(isCrashed)) this.#startBroker(this.#brokers.findIndex(isCrashed));
    else if (this.#producers.some(isCrashed)) {
      this.#startProducer(this.#producers.findIndex(isCrashed));
    } else {
      this.#consumer = new Process(crashed.name);
      this.#startConsumer(this.#consumer);
    }
  }

  #startBroker(number: number): void {
    const scheduler = this.#scheduler;
    const process = new Process(`broker ${number + 1}`);
    const life: Life<BrokerNode> = { process, node: undefined };
    this.#brokers[number] = life;
    const started = this.#as(process, 'starts', () =>
      startBroker({
        scheduler,
        process,
        store: storePort({ ...this.#wire, broker: process, store: this.#store }),
        publisher: this.#rabbit.connect(process),
        idleMs: this.#loopIdleMs,
        ask: (group, request) => {
          const to = this.#producerEndpoint();
          const limitMs = group.checkPolicy.timeoutMs;
          return askProducer(this.#wire, { from: process, to }, { request, limitMs });
        },
      }),
    );
    void started.then((node) => {
      life.node = node;
    });
  }

  #startProducer(number: number): void {
    const process = new Process(`producer ${number + 1}`);
    const node = this.#as(process, 'starts', () =>
      createProducerNode({
        scheduler: this.#scheduler,
        process,
        database: this.#producerDatabase,
        http: brokerHttp(this.#wire, process, () => this.#brokerEndpoints()),
        mistakes: this.#mistakes,
        onAcknowledged: (op, id) => this.#properties.onAcknowledged(op, id),
      }),
    );
    this.#producers[number] = { process, node };
  }

  #startConsumer(process: Process): void {
    this.#as(process, 'starts', () =>
      startConsumer({
        scheduler: this.#scheduler,
        faults: this.#faults,
        process,
        database: this.#consumerDatabase,
        rabbit: this.#rabbit,
        mistakes: this.#mistakes,
      }),
    );
  }

  #begin({ process, node }: Life<ProducerNode>, planned: PlannedTransaction): void {
    this.#scheduler.park(process, `begins ${planned.id}`, () => {
      this.#properties.onBegin(planned.id, process);
      void node?.transact(planned).then(
        ({ outcome }) => this.#ended(process, planned.id, { outcome }),
        (error: unknown) => this.#ended(process, planned.id, { ...toldBy(error), error }),
      );
    });
  }

  #ended(
    process: Process,
    id: string,
    { outcome, messages, error }: { outcome: Outcome; messages?: Released; error?: unknown },
  ): void {
    this.#scheduler.note(process, `${id} is ${outcome} ${error ?? ''}`);
    this.#properties.onEnd(id, outcome, messages);
  }

  /** Either instance answers checks; a load balancer stands before them. */
  #producerEndpoint() {
    const life = this.#producers[this.#scheduler.random.below(this.#producers.length)];
    const { process, node } = life ?? {};
    if (process === undefined || node === undefined) return undefined;
    return { process, serve: node.check };
  }

  #brokerEndpoints(): (Endpoint<string, string> | undefined)[] {
    return this.#brokers.map(({ process, node }) =>
      node === undefined ? undefined : { process, serve: node.batch },
    );
  }

  /** What a process does outside of a step of its own. */
  #as<T>(process: Process, what: string, act: () => T): T {
    this.#scheduler.current = process;
    this.#scheduler.note(process, what);
    return act();
  }
}

export async function simulate(options: RunOptions): Promise<RunResult> {
  const result = await new World(options).run();
  return { ...result, seed: options.seed };
}

/** What is thrown means rolled back, unless it says that the callback did something else. */
function toldBy(error: unknown): { outcome: Outcome; messages?: Released } {
  const { outcome, messages } = isEscrowError(error) ? error.details : {};
  if (outcome === 'commit') return { outcome: 'committed', messages: messages as Released };
  return { outcome: outcome === 'unknown' ? 'unknown' : 'rolledBack' };
}
