import { z } from 'zod';

/*
 * What the soak tells its processes, as JSON in the environment, and what they tell it while they
 * run. The parent only counts what it is told: what happened is read from the databases.
 */

/** The one environment variable that producers and consumers are started with. */
export const SETTINGS_VARIABLE = 'SOAK_SETTINGS';

export const TOPIC = 'account';
export const ROUTING_KEY = 'changed';
export const PRODUCER_GROUP = 'accounts';
export const CONSUMER_GROUP = 'ledger';

export const ProducerSettings = z.object({
  /** Also the name of its database in every check. */
  name: z.string(),
  seed: z.int(),
  brokers: z.array(z.string()),
  /** URL by name: every producer answers checks for all of them. */
  databases: z.record(z.string(), z.string()),
  checkPort: z.int(),
  signingSecret: z.string(),
  /** How many transactions it attempts, over all its lives. */
  transactions: z.int(),
});
export type ProducerSettings = z.output<typeof ProducerSettings>;

export const ConsumerSettings = z.object({
  name: z.string(),
  rabbitmq: z.string(),
  database: z.string(),
});
export type ConsumerSettings = z.output<typeof ConsumerSettings>;

/** From the parent: how many transactions may have been started by now. */
export const Grant = z.object({ grant: z.int() });
export type Grant = z.output<typeof Grant>;

/** To the parent. */
export const Report = z.union([
  z.object({ ready: z.literal(true) }),
  /** So many transactions of this producer were started so far. */
  z.object({ started: z.int() }),
  /** All of them have ended, and every send was acknowledged. */
  z.object({ done: z.literal(true) }),
  z.object({ outcome: z.enum(['committed', 'thrown', 'unknown']) }),
  /** A message came again that was applied before. */
  z.object({ duplicate: z.literal(true) }),
]);
export type Report = z.output<typeof Report>;

export const report = (message: Report): void => {
  if (process.connected) process.send?.(message, () => {});
};

/** @throws ZodError when the parent sent something else */
export const readSettings = <T>(schema: z.ZodType<T>): T =>
  schema.parse(JSON.parse(process.env[SETTINGS_VARIABLE] ?? 'null'));
