import { randomInt } from 'node:crypto';
import {
  EscrowError,
  optionNames,
  ProducerGroupName,
  parse,
  refuseUnknown,
  requireFunction,
} from '@escrowmq/protocol';
import { Webhook } from 'standardwebhooks';
import { parseLimit } from '../options.js';
import { type CheckFunction, createAsker } from './asker.js';
import { type DatabaseProxy, type KitProxy, startDatabaseProxy } from './database-proxy.js';
import { DATABASE_SCENARIOS } from './database-scenarios.js';
import { HOSTILE_SCENARIOS } from './hostile-scenarios.js';
import type { Evidence } from './judge.js';
import { startKitBroker } from './kit-broker.js';
import { AGREEMENT_SCENARIOS, type Play } from './scenarios.js';
import { type Attempt, createTrial } from './trial.js';

export type { Attempt, CheckFunction, DatabaseProxy };

/** Each by its name, and how it is played. */
const SCENARIOS = { ...AGREEMENT_SCENARIOS, ...HOSTILE_SCENARIOS, ...DATABASE_SCENARIOS };

/** The name of a scenario. */
export type FaultScenario = keyof typeof SCENARIOS;

/** All of them, in the order in which `run` plays them. */
export const FAULT_SCENARIOS = Object.keys(SCENARIOS) as readonly FaultScenario[];

/** The producer under test. All times are milliseconds. */
export interface FaultKitOptions {
  /** The group that the producer prepares for. */
  producerGroup: string;
  /** The secret that its check endpoint verifies with, `whsec_…`. */
  signingSecret: string;
  /** The URL of its check endpoint, or a function in its place: a `CheckHandler` fits. */
  check: string | CheckFunction;
  /**
   * Runs one local transaction with one message, as your service does: by `producer.transaction`, or
   * by prepare, commit and rollback of your own. It writes a row that `committed` can find by
   * `attempt.number`, and awaits `attempt.pause()` inside the open transaction, after that. It may
   * throw, and often must.
   */
  transaction(attempt: Attempt): Promise<unknown>;
  /** Whether the row of this attempt is durable. On a connection that no `proxy` of the kit cuts. */
  committed(attempt: Attempt): Promise<boolean>;
  /** For one call of `transaction`. @default 30000: six times the SDK's `verdictTimeoutMs` */
  transactionTimeoutMs?: number;
  /** For the checks after it, until one of them decides. @default 10000 */
  settleTimeoutMs?: number;
}

const FAULT_KIT_OPTIONS = optionNames<FaultKitOptions>({
  producerGroup: true,
  signingSecret: true,
  check: true,
  transaction: true,
  committed: true,
  transactionTimeoutMs: true,
  settleTimeoutMs: true,
});

/** What came of one scenario. */
export interface FaultVerdict {
  /** Which one. */
  scenario: FaultScenario;
  /** True also where it was skipped. */
  passed: boolean;
  /** It could not be tried; `finding` says why. Absent where it was. */
  skipped?: true;
  /** What was seen, or each mistake with its cure, in sentences. */
  finding: string;
}

/** Plays the broker to the producer under test. */
export interface FaultKit {
  /** What the producer under test takes for its broker: `brokers: [kit.address]`. */
  readonly address: string;
  /** Names for `runScenario`. */
  readonly scenarios: readonly FaultScenario[];
  /**
   * Stands between a pool of the producer and its database, and cuts it at COMMIT: for MySQL and
   * PostgreSQL, without TLS. Without it the scenarios of lost COMMITs are skipped. Connections that
   * lie idle in the pool get cut too; `pg` wants a listener for that: `pool.on('error', …)`.
   */
  proxy(database: {
    /** The database's own host. */
    host: string;
    /** The database's own port. */
    port: number;
  }): Promise<DatabaseProxy>;
  /**
   * All scenarios, one after another; 10 to 30 s.
   *
   * @throws {EscrowError} INVALID_CONFIGURATION when the set-up is wrong: nothing was prepared at
   *   `address`, `pause` was not awaited, no COMMIT came through the proxy
   * @throws what `committed` threw
   */
  run(): Promise<FaultVerdict[]>;
  /** One of them; waits for its turn. @throws like `run` */
  runScenario(scenario: FaultScenario): Promise<FaultVerdict>;
  /** What was found so far, a paragraph for each scenario. */
  report(): string;
  /** Ends the broker and the proxies. */
  close(): Promise<void>;
}

const TRANSACTION_TIMEOUT_MS = 30_000;
/** Ten times as long as a check waits for a lock. */
const SETTLE_TIMEOUT_MS = 10_000;

/** Numbers of attempts have 31 bits, the smallest integers that databases have for keys. */
const NUMBER_MAX = 2 ** 31 - 1;

/**
 * Tells a producer whether it is safe. It plays the broker, loses and repeats what passes, asks
 * checks at the worst moments, forges them, cuts the database at COMMIT, and then compares: what is
 * durable in the database, what the checks answered and what the producer sent must agree. Each
 * disagreement is a finding that names the mistake and its cure.
 *
 * For tests, with a database that holds nothing of value. The pool of the check needs a connection
 * beside that of the transaction.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION, INVALID_NAME
 * @example
 * const kit = await createFaultKit({
 *   producerGroup: 'accounts',
 *   signingSecret,
 *   check: 'http://127.0.0.1:8080/escrow-check',
 *   transaction: (attempt) =>
 *     producer.transaction(pool, { topic: 'user', data: {} }, async (tx) => {
 *       await tx.execute('insert into user (id) values (?)', [attempt.number]);
 *       await attempt.pause();
 *     }),
 *   committed: async ({ number }) => (await findUser(number)) !== undefined,
 * });
 * const { host, port } = await kit.proxy({ host: '127.0.0.1', port: 3306 });
 * const pool = createPool({ host, port, user, password, database });
 * const producer = createProducer({ brokers: [kit.address], producerGroup: 'accounts' });
 *
 * const verdicts = await kit.run();
 * assert(verdicts.every(({ passed }) => passed), kit.report());
 */
export async function createFaultKit(options: FaultKitOptions): Promise<FaultKit> {
  refuseUnknown(options, FAULT_KIT_OPTIONS, 'createFaultKit');
  requireFunction(options.transaction, 'transaction', 'createFaultKit');
  requireFunction(options.committed, 'committed', 'createFaultKit');
  const group = {
    producerGroup: parse(ProducerGroupName, options.producerGroup, 'producerGroup'),
    signingSecret: parseSecret(options.signingSecret),
  };
  const subject = {
    transaction: options.transaction,
    committed: options.committed,
    transactionTimeoutMs: parseLimit(
      'transactionTimeoutMs',
      options.transactionTimeoutMs ?? TRANSACTION_TIMEOUT_MS,
    ),
    settleTimeoutMs: parseLimit('settleTimeoutMs', options.settleTimeoutMs ?? SETTLE_TIMEOUT_MS),
  };
  const asker = createAsker({ ...group, check: options.check });
  const broker = await startKitBroker(group);
  const verdicts = new Map<FaultScenario, FaultVerdict>();
  // At random, so that the rows of other runs are not in the way.
  let attemptNumber = randomInt(NUMBER_MAX);
  let proxy: KitProxy | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  async function play(scenario: FaultScenario): Promise<FaultVerdict> {
    attemptNumber = (attemptNumber % NUMBER_MAX) + 1;
    const trial = createTrial({ broker, asker, subject, proxy, attemptNumber });
    const run: Play = SCENARIOS[scenario];
    try {
      const verdict = await judged(scenario, { run, trial });
      verdicts.set(scenario, verdict);
      return verdict;
    } finally {
      proxy?.disarm();
    }
  }

  function runScenario(scenario: FaultScenario): Promise<FaultVerdict> {
    const played = turn.then(() => play(scenario));
    // A scenario that could not be set up is its caller's; the next one has its turn all the same.
    turn = played.catch(() => undefined);
    return played;
  }

  return {
    address: broker.address,
    scenarios: FAULT_SCENARIOS,
    async proxy(database) {
      if (proxy !== undefined) {
        throw new EscrowError('INVALID_CONFIGURATION', 'a fault kit has one proxy; make two kits');
      }
      proxy = await startDatabaseProxy(database);
      return proxy;
    },
    async run() {
      const all: FaultVerdict[] = [];
      for (const scenario of FAULT_SCENARIOS) all.push(await runScenario(scenario));
      return all;
    },
    runScenario,
    report: () => [...verdicts.values()].map(paragraph).join('\n'),
    async close() {
      await Promise.all([broker.close(), proxy?.close()]);
    },
  };
}

async function judged(
  scenario: FaultScenario,
  { run, trial }: { run: Play; trial: ReturnType<typeof createTrial> },
): Promise<FaultVerdict> {
  const skipped = await run(trial);
  if (skipped !== undefined && !trial.hasStarted) {
    return { scenario, passed: true, skipped: true, finding: skipped };
  }
  const { findings, evidence } = await trial.conclude();
  if (findings.length > 0) return { scenario, passed: false, finding: findings.join(' ') };
  if (skipped !== undefined) return { scenario, passed: true, skipped: true, finding: skipped };
  return { scenario, passed: true, finding: seen(evidence) };
}

/** What all agreed on. */
function seen({ committed, transactions }: Evidence): string {
  const parts = transactions.map(({ verdicts, checks }) => {
    const answers = counted(checks.map(({ moment, answer }) => `${answer.decision} ${moment}`));
    return `sent ${counted(verdicts) || 'no verdict'}; checks answered ${answers || 'nothing'}`;
  });
  return `${committed ? 'committed' : 'rolled back'}; ${parts.join('; ')}`;
}

/** `commit, commit` as `commit (2 times)`. */
function counted(words: readonly string[]): string {
  const runs: { word: string; times: number }[] = [];
  for (const word of words) {
    const last = runs.at(-1);
    if (last?.word === word) last.times += 1;
    else runs.push({ word, times: 1 });
  }
  return runs.map(({ word, times }) => (times > 1 ? `${word} (${times} times)` : word)).join(', ');
}

function paragraph({ scenario, passed, skipped, finding }: FaultVerdict): string {
  const word = skipped === true ? 'skipped' : passed ? 'passed' : 'FAILED';
  return `${word}  ${scenario}: ${finding}`;
}

function parseSecret(signingSecret: string): string {
  try {
    new Webhook(signingSecret);
    return signingSecret;
  } catch (cause) {
    throw new EscrowError('INVALID_CONFIGURATION', 'signingSecret is not whsec_ and base64', {
      cause,
    });
  }
}
