import { setTimeout as pause } from 'node:timers/promises';
import { PHONE_INDEX, type User } from '../indexes.js';
import { findUser } from '../look-up.js';
import { registerSurely } from './register.js';
import { registerMany, type Scene } from './scene.js';

const BURST = 300;
/** A third is done and two thirds are under way or to come: the middle of the burst. */
const FAULT_AFTER = 100;

/** Registers a burst; `fault` begins in its middle, and both are waited for. */
async function burstWith(scene: Scene, fault: () => Promise<void>): Promise<void> {
  let reachMiddle = () => {};
  const middle = new Promise<void>((resolve) => {
    reachMiddle = resolve;
  });
  const onDone = (done: number) => {
    if (done === FAULT_AFTER) reachMiddle();
  };
  await Promise.all([registerMany(scene, BURST, onDone), middle.then(fault)]);
}

/** The broker is gone for a moment, and what it had not yet decided comes back from its store. */
export async function killBroker(scene: Scene): Promise<void> {
  const { stage, narrator } = scene;
  narrator.step(`4. The broker is killed (SIGKILL) in the middle of ${BURST} registrations.`);
  await burstWith(scene, async () => {
    await stage.broker.kill();
    narrator.say('The broker is dead. Producers repeat their calls under the same ids.');
    await stage.broker.start();
    narrator.say('The broker is back, on the same store.');
  });
}

const WHILE_DOWN = 100;

/** RabbitMQ is gone for some seconds; the broker goes on accepting. */
export async function stopRabbitmq(scene: Scene): Promise<void> {
  const { stage, narrator } = scene;
  narrator.step(`5. RabbitMQ is stopped in the middle of ${BURST} registrations.`);
  await burstWith(scene, async () => {
    await stage.servers.rabbitmq.stop();
  });
  narrator.say(`RabbitMQ is down. ${WHILE_DOWN} more register, and it is started again.`);
  await Promise.all([registerMany(scene, WHILE_DOWN), stage.servers.rabbitmq.restart()]);
  narrator.say('RabbitMQ is back, and gets what the broker has kept.');
}

const LOOK_UPS = 100;
const PAUSE_MS = 5_000;
/** The pause, and time for the writers to catch up on a busy machine. */
const LOOK_UP_WAIT_MS = 60_000;

/** Index entries are late; whoever looks a phone up waits for its registration to settle. */
export async function pauseIndexWriters(scene: Scene): Promise<void> {
  const { stage, cast, ledger, narrator, lookUps } = scene;
  narrator.step(`10. The index writers stand still for 5 s; ${LOOK_UPS} phones are looked up.`);
  const deps = { producer: stage.client, shards: stage.shards, waitMs: LOOK_UP_WAIT_MS };
  const users = Array.from({ length: LOOK_UPS }, () => cast.next());
  let waiting = 0;

  const registerAndFind = async (user: User) => {
    await registerSurely({ producerUrl: stage.producer.url, ledger }, user);
    waiting += 1;
    const found = await findUser(deps, PHONE_INDEX, user.phone);
    waiting -= 1;
    lookUps.tried += 1;
    if (found?.userId === user.userId) lookUps.found += 1;
  };
  const resume = async () => {
    await pause(PAUSE_MS);
    narrator.say(`${waiting} users are acknowledged, and their look-ups wait at the broker.`);
    stage.writers.resume();
  };

  stage.writers.pause();
  await Promise.all([resume(), ...users.map(registerAndFind)]);
  narrator.say(`The writers went on: ${lookUps.found} of ${LOOK_UPS} look-ups found their user.`);
}
