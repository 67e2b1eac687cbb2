import { EMAIL_INDEX } from '../indexes.js';
import { countDeadLetters } from './queues.js';
import { register, registerSurely } from './register.js';
import { registerMany, type Scene } from './scene.js';
import { waitFor } from './wait-for.js';

/** Everything goes well. */
export async function registerUsers(scene: Scene, count: number): Promise<void> {
  scene.narrator.step(`1. ${count} users register, 32 at a time.`);
  await registerMany(scene, count);
}

const LOCAL_FAILURES = 20;

/** The local transaction fails: both are rolled back at once, and no check is needed. */
export async function failLocally({ stage, cast, ledger, narrator }: Scene): Promise<void> {
  narrator.step(`2. ${LOCAL_FAILURES} users register with an e-mail that their shard has already.`);
  const known = ledger.registered.slice(0, LOCAL_FAILURES);
  await Promise.all(
    known.map(async (first) => {
      const { email } = first;
      const second = { ...cast.nextBeside(first), email };
      const { code, transactionId = '' } = await register(stage.producer.url, second);
      if (code !== 'EMAIL_TAKEN') {
        throw new Error(`${email} was registered twice in one shard (${code ?? 'acknowledged'})`);
      }
      const { state, decision, checks } = await stage.client.query(transactionId);
      if (state !== 'rolledBack' || decision?.by !== 'producer') {
        throw new Error(`transaction ${transactionId} is ${state} after a local failure`);
      }
      if (checks.unknown + checks.unanswered > 0) {
        throw new Error(`transaction ${transactionId} was rolled back only after a check`);
      }
      ledger.rolledBack += 1;
    }),
  );
  narrator.say('All were refused and rolled back by the producer at once, before any check.');
}

const CONFLICTS = 5;

/** Two local transactions succeed that contradict each other. */
export async function registerEmailTwice({ stage, cast, ledger, narrator }: Scene): Promise<void> {
  narrator.step(`3. ${CONFLICTS} e-mails are registered a second time, in another shard.`);
  const known = ledger.registered.slice(-CONFLICTS);
  const target = { producerUrl: stage.producer.url, ledger };
  await Promise.all(
    known.map(async (first) => {
      const { email } = first;
      await registerSurely(target, { ...cast.nextApartFrom(first), email });
      ledger.conflicts += 1;
    }),
  );
  narrator.say('Both shards accepted them: neither can see what the other one has.');
  await waitFor(`${ledger.conflicts} dead letters of ${EMAIL_INDEX.group}`, async () => {
    const count = await countDeadLetters(stage.servers.rabbitmq.url, EMAIL_INDEX.group);
    return count === ledger.conflicts ? true : undefined;
  });
  narrator.say(`The second index entry became a dead letter, ${CONFLICTS} times.`);
}
