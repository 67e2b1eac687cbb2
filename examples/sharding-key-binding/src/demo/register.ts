import type { User } from '../indexes.js';
import type { RegistrationAnswer } from '../producer-service.js';
import type { Ledger } from './ledger.js';

/** As many as a busy front end would have under way. */
const CONCURRENCY = 32;

/** Longer than the producer's own limits together: it answers first, with what went wrong. */
const ANSWER_MS_MAX = 120_000;

/** Asks a producer service to register a user. @throws when it is killed meanwhile */
export async function register(producerUrl: string, user: User): Promise<RegistrationAnswer> {
  try {
    const response = await fetch(`${producerUrl}/users`, {
      method: 'POST',
      body: JSON.stringify(user),
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    return (await response.json()) as RegistrationAnswer;
  } catch (cause) {
    throw new Error(`user ${user.userId}: the producer service gave no answer`, { cause });
  }
}

/** Registers a user who must be registered in the end, and notes it. */
export async function registerSurely(
  { producerUrl, ledger }: { producerUrl: string; ledger: Ledger },
  user: User,
): Promise<void> {
  for (;;) {
    const { code, message } = await register(producerUrl, user);
    if (code === undefined) {
      ledger.registered.push(user);
      return;
    }
    // A busy machine: the check came before the local transaction had begun. Nothing was written.
    if (code !== 'ALREADY_ROLLED_BACK') {
      throw new Error(`user ${user.userId} could not be registered: ${code}, ${message}`);
    }
    ledger.rolledBack += 1;
  }
}

/** Calls `work` with every user, 32 at a time. @throws the first error */
export async function forAll(
  users: readonly User[],
  work: (user: User) => Promise<void>,
): Promise<void> {
  const waiting = users.values();
  const worker = async () => {
    for (const user of waiting) await work(user);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
}
