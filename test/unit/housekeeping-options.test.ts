import * as consumerSdk from '@escrowmq/consumer';
import * as producerSdk from '@escrowmq/producer';
import { expect, test } from '@jest/globals';

/* At which age rows may go: never while the broker may still ask for them, or send a message again. */

const DAY_MS = 24 * 60 * 60 * 1000;
/** Passes for a pool of mysql2; nothing is asked of it within the first minutes. */
const pool = () =>
  ({ getConnection: () => Promise.reject(new Error('no database here')) }) as never;
const refused = (text: string) =>
  expect.objectContaining({
    code: 'INVALID_CONFIGURATION',
    message: expect.stringContaining(text),
  });

const begin = async (start: () => producerSdk.Housekeeping) => start().stop();

test('barrier rows and compensations are kept for as long as handlers answer by them', async () => {
  const start = (barrierKeptMs: number, database = pool()) =>
    begin(() => producerSdk.startHousekeeping(database, { barrierKeptMs }));
  await start(7 * DAY_MS);
  await expect(start(7 * DAY_MS - 1)).rejects.toThrow(refused('barrierKeptMs'));
  const database = pool();
  const signingSecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const barrierRetentionMs = 30 * DAY_MS;
  producerSdk.createCheckHandler({ signingSecret, database, barrierRetentionMs });
  await expect(start(29 * DAY_MS, database)).rejects.toThrow(refused('barrierRetentionMs'));
  await start(30 * DAY_MS, database);
});

test('rows of the outbox are kept for a day, those of consumed messages for as long as a broker knows them', async () => {
  const outbox = (outboxKeptMs: number) =>
    begin(() => producerSdk.startHousekeeping(pool(), { outboxKeptMs }));
  await outbox(DAY_MS);
  await expect(outbox(DAY_MS - 1)).rejects.toThrow(refused('outboxKeptMs'));
  const consumed = (consumedKeptMs: number) =>
    begin(() => consumerSdk.startHousekeeping(pool(), { consumedKeptMs }));
  await consumed(30 * DAY_MS);
  await expect(consumed(30 * DAY_MS - 1)).rejects.toThrow(refused('applied twice'));
});

test('what is no switch is refused, with where settings go', async () => {
  const ensure = (housekeeping: unknown) =>
    producerSdk.ensureBarrierTable(pool(), { housekeeping } as never);
  for (const housekeeping of [{ everyMs: 60_000 }, 'off', 0, null]) {
    await expect(ensure(housekeeping)).rejects.toThrow(refused('startHousekeeping'));
  }
});
