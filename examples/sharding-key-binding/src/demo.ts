import { parseArgs } from 'node:util';
import { createCast } from './demo/cast.js';
import { leaveVerdictsOpen } from './demo/check-steps.js';
import { type Crew, createCrew } from './demo/crew.js';
import { reportInTheEnd } from './demo/final-report.js';
import { emptyLedger } from './demo/ledger.js';
import { createNarrator, type Narrator } from './demo/narrator.js';
import { failLocally, registerEmailTwice, registerUsers } from './demo/ordinary-steps.js';
import { killBroker, pauseIndexWriters, stopRabbitmq } from './demo/outage-steps.js';
import { openStage, type Stage } from './demo/stage.js';
import type { Verdict } from './demo/verdict.js';

/*
 * The scenario of this example with real servers and real faults, told in sentences, and in the
 * end a table that is read from the databases. Exit code 0 means that everything agrees.
 */

const USAGE = `usage: npm run demo -- [--break] [--keep]
  --break  answer checks by looking instead of deciding: messages get lost, and the demo must fail
  --keep   keep the data folders of the servers and say where they are`;

interface Options {
  break: boolean;
  keep: boolean;
}

function parseOptions(): Options {
  try {
    const { values } = parseArgs({
      options: {
        break: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
      },
    });
    return values;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n${USAGE}\n`);
    process.exit(2);
  }
}

const USERS = 1_000;

interface Running {
  options: Options;
  crew: Crew;
  narrator: Narrator;
  onStage(stage: Stage): void;
}

async function play({ options, crew, narrator, onStage }: Running): Promise<Verdict> {
  narrator.step('RabbitMQ, two database servers with two shards each, and the broker start.');
  const stage = await openStage({ crew, naiveCheck: options.break, say: narrator.say });
  onStage(stage);
  if (options.break) narrator.say('--break: producers look instead of deciding when asked.');
  const scene = {
    stage,
    narrator,
    cast: createCast(stage.shards.all.length),
    ledger: emptyLedger(),
    lookUps: { tried: 0, found: 0 },
  };
  await registerUsers(scene, USERS);
  await failLocally(scene);
  await registerEmailTwice(scene);
  // Out of order: what the killed broker had in hand stays leased for up to 30 s, and the other
  // steps pass meanwhile.
  await killBroker(scene);
  await stopRabbitmq(scene);
  await leaveVerdictsOpen(scene);
  await pauseIndexWriters(scene);
  return reportInTheEnd(scene);
}

/** Beyond this the list says nothing new. */
const DIFFERENCES_SHOWN_MAX = 30;

function show({ rows, differences }: Verdict): void {
  const width = Math.max(...rows.map(([what]) => what.length));
  process.stdout.write('\n');
  for (const [what, count] of rows) {
    process.stdout.write(`  ${what.padEnd(width)}  ${String(count).padStart(5)}\n`);
  }
  process.stdout.write('\n');
  for (const difference of differences.slice(0, DIFFERENCES_SHOWN_MAX)) {
    process.stdout.write(`${difference}\n`);
  }
  const more = differences.length - DIFFERENCES_SHOWN_MAX;
  if (more > 0) process.stdout.write(`and ${more} more\n`);
}

/** The message, and those of its causes: a call that got no answer says why there. */
function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${sentenceOf(error.cause)}`;
}

/** Rejects when the user or the system asks for an end. */
function interrupted(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`interrupted by ${signal}`)));
    }
  });
}

async function main(): Promise<number> {
  const options = parseOptions();
  const narrator = createNarrator(process.stdout);
  const crew = createCrew();
  let stage: Stage | undefined;
  const onStage = (opened: Stage) => {
    stage = opened;
  };
  let failure: string | undefined;
  try {
    const playing = play({ options, crew, narrator, onStage });
    const verdict = await Promise.race([playing, crew.died, interrupted()]);
    show(verdict);
    if (verdict.differences.length > 0) failure = 'the databases do not agree';
  } catch (error) {
    failure = sentenceOf(error);
    process.stdout.write(`\n${failure}\n`);
  }
  await crew.killAll();
  // Servers that were still starting end with this process.
  if (options.keep && stage !== undefined) {
    process.stdout.write(`the data is in ${await stage.servers.keep()}\n`);
  } else {
    await stage?.servers.remove();
  }
  process.stdout.write(failure === undefined ? 'demo: ok\n' : 'demo: FAILED\n');
  return failure === undefined ? 0 : 1;
}

process.exit(await main());
