import { setTimeout as pause } from 'node:timers/promises';
import { asAdmin } from './world/databases.js';
import { CONSUMER_DATABASE, PRODUCER_DATABASES, STORE_DATABASE } from './world/names.js';
import type { World } from './world/world.js';

/*
 * After the last fault: everything is healed, and then the system has a minute to come to rest by
 * itself. What is not at rest by then is for the checker to find.
 */

export const CALM_MS_MAX = 60_000;
/** Something that came too late would come now. */
const SETTLING_MS = 2_000;
const POLL_MS = 250;

/** Every link is whole; every process runs; databases can be written. */
export async function heal(world: World): Promise<void> {
  for (const proxy of Object.values(world.proxies)) proxy.heal();
  for (const child of Object.values(world.processes)) child.signal('SIGCONT');
  for (const target of Object.values(world.databases)) {
    await asAdmin(target, (query) => query('set global read_only = 0'));
  }
}

/** @returns ms until nothing was open and everything applied; undefined when the minute was over */
export async function untilCalm(world: World): Promise<number | undefined> {
  const startedAt = performance.now();
  while (performance.now() - startedAt < CALM_MS_MAX) {
    if (world.isDone() && (await isAtRest(world))) {
      const tookMs = Math.round(performance.now() - startedAt);
      await pause(SETTLING_MS);
      return tookMs;
    }
    await pause(POLL_MS);
  }
  return undefined;
}

async function isAtRest({ databases }: World): Promise<boolean> {
  const open = await countOf(
    databases.store,
    `select count(*) as n from ${STORE_DATABASE}.escrow_transaction where state in ('prepared', 'committed')`,
  );
  if (open > 0) return false;
  const committed = await Promise.all(
    Object.values(PRODUCER_DATABASES).flatMap((database) =>
      ['business', 'send'].map((table) =>
        countOf(databases.services, `select count(*) as n from ${database}.${table}`),
      ),
    ),
  );
  const applied = await countOf(
    databases.services,
    `select count(*) as n from ${CONSUMER_DATABASE}.effect`,
  );
  return applied >= committed.reduce((sum, count) => sum + count, 0);
}

function countOf(target: World['databases']['store'], sql: string): Promise<number> {
  return asAdmin(target, async (query) => {
    const [row] = (await query(sql)) as { n: number }[];
    return Number(row?.n ?? 0);
  });
}
