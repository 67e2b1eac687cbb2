import type { TransactionView } from '@escrowmq/producer';
import type { User } from '../indexes.js';
import type { RegistrationAnswer } from '../producer-service.js';
import type { HaltPoint } from './halting-pool.js';
import { register } from './register.js';
import { type Scene, transactionIdOf } from './scene.js';
import type { ProducerProcess } from './stage.js';
import { waitFor } from './wait-for.js';

/*
 * Producers that come to a halt inside a transaction. Nobody sends a verdict, so the broker asks,
 * and whichever producer process is asked answers from the barrier in the shard.
 */

const PER_STEP = 3;

/** Registrations that stand still at a halt point, and that the broker has prepared. */
interface Halted {
  producer: ProducerProcess;
  users: User[];
  ids: string[];
  answers: Promise<PromiseSettledResult<RegistrationAnswer>[]>;
}

async function startHalted(scene: Scene, haltAt: HaltPoint): Promise<Halted> {
  const { stage, cast } = scene;
  const producer = await stage.startHaltingProducer(haltAt);
  const users = Array.from({ length: PER_STEP }, () => cast.next());
  const answers = Promise.allSettled(users.map((user) => register(producer.url, user)));
  await producer.halted(users.length);
  const ids = await Promise.all(users.map((user) => transactionIdOf(scene, user)));
  return { producer, users, ids, answers };
}

/** All four at a time: each of them mostly waits for the broker to ask. */
export async function leaveVerdictsOpen(scene: Scene): Promise<void> {
  scene.narrator.step(
    `6 to 9. Four more producers come to a halt inside ${PER_STEP} registrations each.`,
  );
  await Promise.all([
    killBeforeVerdict(scene),
    killBeforeCommit(scene),
    checkWhileOpen(scene),
    checkBeforeBegin(scene),
  ]);
}

async function killBeforeVerdict(scene: Scene): Promise<void> {
  const { narrator, ledger } = scene;
  const { producer, users, ids } = await startHalted(scene, 'verdict');
  await producer.child.kill();
  ledger.registered.push(...users);
  narrator.say('6. One was killed between its local COMMIT and its verdict.');
  await waitForEach(scene, ids, (view) => decidedByCheck(view) === 'commit');
  narrator.say('6. The broker asked another producer, which answered commit: forwarded.');
}

async function killBeforeCommit(scene: Scene): Promise<void> {
  const { narrator, ledger } = scene;
  const { producer, ids } = await startHalted(scene, 'localCommit');
  await producer.child.kill();
  ledger.rolledBack += ids.length;
  narrator.say('7. One was killed before its local COMMIT: its database has rolled back.');
  await waitForEach(scene, ids, (view) => decidedByCheck(view) === 'rollback');
  narrator.say('7. The broker asked another producer, which answered rollback: dropped.');
}

async function checkWhileOpen(scene: Scene): Promise<void> {
  const { narrator } = scene;
  const halted = await startHalted(scene, 'localCommit');
  await waitForEach(
    scene,
    halted.ids,
    ({ checks, decision }) => checks.unknown > 0 || decision !== undefined,
  );
  narrator.say('8. The broker asked while local transactions were still open. They commit now.');
  await noteAnswers(scene, 8, halted);
}

/** The race the other way round: the check decides first, and the local transaction learns it. */
async function checkBeforeBegin(scene: Scene): Promise<void> {
  const { narrator } = scene;
  const halted = await startHalted(scene, 'begin');
  await waitForEach(scene, halted.ids, ({ decision }) => decision !== undefined);
  narrator.say('9. The broker asked before local transactions had begun. They begin now.');
  await noteAnswers(scene, 9, halted);
}

/** Lets the producer go on, notes what it answers to its callers, and ends it. */
async function noteAnswers(scene: Scene, step: number, halted: Halted): Promise<void> {
  const { narrator, ledger } = scene;
  halted.producer.goOn();
  const counts = { acknowledged: 0, refused: 0 };
  for (const [index, answer] of (await halted.answers).entries()) {
    if (answer.status === 'rejected') throw answer.reason;
    const user = halted.users[index];
    const { code, message } = answer.value;
    if (code === undefined && user !== undefined) {
      ledger.registered.push(user);
      counts.acknowledged += 1;
    } else if (code === 'ALREADY_ROLLED_BACK') {
      ledger.rolledBack += 1;
      counts.refused += 1;
    } else {
      throw new Error(`user ${user?.userId}: ${code}, ${message}`);
    }
  }
  narrator.say(
    `${step}. Then ${counts.acknowledged} were acknowledged, and ${counts.refused} refused with nothing written.`,
  );
  await halted.producer.child.stop();
}

/** What a check decided; undefined while nothing is decided, or when somebody else did. */
function decidedByCheck({ decision }: TransactionView): string | undefined {
  return decision?.by.startsWith('check ') ? decision.decision : undefined;
}

async function waitForEach(
  { stage }: Scene,
  ids: readonly string[],
  condition: (view: TransactionView) => boolean,
): Promise<void> {
  await Promise.all(
    ids.map((id) =>
      waitFor(`a check of transaction ${id}`, async () =>
        condition(await stage.client.query(id)) ? true : undefined,
      ),
    ),
  );
}
