import { setTimeout as pause } from 'node:timers/promises';
import { PHONE_INDEX } from '../indexes.js';
import { findUser } from '../look-up.js';
import { forAll, registerSurely } from './register.js';
import { registerMany, type Scene } from './scene.js';

const BURST = 300;
/** A third is done and two thirds are under way or to come: the middle of the burst. */
const FAULT_AFTER = 100;

/** Registers a burst; `fault` begins in its middle, and both are waited for. */
async function burstWith(scene: Scene, fault: () => Promise<void>): Promise<void> {
  let faulting: Promise<void> | undefined;
  await registerMany(scene, BURST, (done) => {
    if (done === FAULT_AFTER) faulting = fault();
  });
  await faulting;
}

/** The broker is gone for a moment, and what it had not yet decided comes back from its store. */
export async function killBroker(scene: Scene): Promise<void> {
  const { stage, narrator } = scene;
  narrator.step(`8. The broker is killed (SIGKILL) in the middle of ${BURST} registrations.`);
  await burstWith(scene, async () => {
    await stage.broker.kill();
    narrator.say('The broker is dead. Producers repeat their calls under the same ids.');
    await stage.broker.start();
    narrator.say('The broker is back, on the same store.');
  });
}

/** RabbitMQ is gone for some seconds; the broker goes on accepting. */
export async function stopRabbitmq(scene: Scene): Promise<void> {
  const { stage, narrator } = scene;
  narrator.step(`9. RabbitMQ is stopped in the middle of ${BURST} registrations.`);
  await burstWith(scene, async () => {
    await stage.servers.rabbitmq.stop();
    narrator.say('RabbitMQ is down. The broker keeps what is committed.');
    await stage.servers.rabbitmq.restart();
    narrator.say('RabbitMQ is back.');
  });
}

const LOOK_UPS = 100;
const PAUSE_MS = 5_000;
/** The pause, and time for the writers to catch up on a busy machine. */
const LOOK_UP_WAIT_MS = 60_000;

/** Index entries are late; whoever looks a phone up waits for its registration to settle. */
export async function pauseIndexWriters(scene: Scene): Promise<void> {
  const { stage, cast, ledger, narrator, lookUps } = scene;
  narrator.step(`7. The index writers stand still for 5 s; ${LOOK_UPS} phones are looked up.`);
  const deps = { producer: stage.client, shards: stage.shards, waitMs: LOOK_UP_WAIT_MS };
  const users = Array.from({ length: LOOK_UPS }, () => cast.next());
  const pending: Promise<void>[] = [];
  let waiting = 0;

  const lookUp = async (userId: number, phone: string) => {
    waiting += 1;
    const found = await findUser(deps, PHONE_INDEX, phone);
    waiting -= 1;
    lookUps.tried += 1;
    if (found?.userId === userId) lookUps.found += 1;
  };

  stage.writers.pause();
  try {
    const resumeAt = pause(PAUSE_MS);
    await forAll(users, async (user) => {
      await registerSurely({ producerUrl: stage.producer.url, ledger }, user);
      pending.push(lookUp(user.userId, user.phone));
    });
    await resumeAt;
    narrator.say(`${LOOK_UPS} users are acknowledged; ${waiting} look-ups wait at the broker.`);
  } finally {
    stage.writers.resume();
  }
  await Promise.all(pending);
  narrator.say(
    `The writers go on: ${lookUps.found} of ${lookUps.tried} look-ups found their user.`,
  );
}
