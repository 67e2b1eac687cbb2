import { SearchAnswer } from '@escrowmq/protocol';
import { PHONE_INDEX, type User } from '../indexes.js';
import type { Cast } from './cast.js';
import type { Ledger } from './ledger.js';
import type { Narrator } from './narrator.js';
import { forAll, registerSurely } from './register.js';
import type { Stage } from './stage.js';
import { waitFor } from './wait-for.js';

/** What every step of the demo works with. */
export interface Scene {
  stage: Stage;
  cast: Cast;
  ledger: Ledger;
  narrator: Narrator;
  /** Look-ups tried, and how many found the right user. */
  lookUps: { tried: number; found: number };
}

/**
 * Registers `count` new users with a producer that nobody kills.
 *
 * @param onDone is told how many are registered so far
 */
export async function registerMany(
  { stage, cast, ledger, narrator }: Scene,
  count: number,
  onDone: (done: number) => void = () => {},
): Promise<void> {
  const users = Array.from({ length: count }, () => cast.next());
  const progress = narrator.progress('registered', count);
  let done = 0;
  await forAll(users, async (user) => {
    await registerSurely({ producerUrl: stage.producer.url, ledger }, user);
    done += 1;
    progress.advance();
    onDone(done);
  });
  progress.end();
}

/** The id of the transaction that registers this user, as soon as the broker has it. */
export async function transactionIdOf({ stage }: Scene, user: User): Promise<string> {
  const key = encodeURIComponent(PHONE_INDEX.businessKeyOf(user.phone));
  return waitFor(`the broker to know the registration of user ${user.userId}`, async () => {
    const response = await fetch(`${stage.broker.url}/v1/transactions?businessKey=${key}`);
    if (!response.ok) return undefined;
    return SearchAnswer.parse(await response.json()).transactions[0]?.id;
  });
}
