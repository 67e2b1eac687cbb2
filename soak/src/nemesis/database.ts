import { setTimeout as pause } from 'node:timers/promises';
import { asAdmin } from '../world/databases.js';
import type { World } from '../world/world.js';
import type { DatabaseServerName, Fault } from './fault.js';

/* Faults of the two database servers. */

type DatabaseFault =
  | Extract<Fault, { kind: 'killConnections' | 'readOnly' }>
  | { kind: 'killServer'; server: DatabaseServerName };

export async function doToDatabase(world: World, fault: DatabaseFault): Promise<void> {
  const target = world.databases[fault.server];
  switch (fault.kind) {
    case 'killConnections':
      await asAdmin(target, (query) => killAll(query));
      return;
    case 'readOnly':
      await asAdmin(target, async (query) => {
        // Transactions that have written already fail at their COMMIT.
        await query('set global read_only = 1');
        await pause(fault.ms);
        await query('set global read_only = 0');
      });
      return;
    case 'killServer':
      await target.server.kill();
      await target.server.restart();
      return;
  }
}

async function killAll(query: (sql: string) => Promise<unknown>): Promise<void> {
  const rows = (await query(
    "select id from information_schema.processlist where user = 'soak'",
  )) as { id: number }[];
  for (const { id } of rows) {
    // It may have ended in between, which is what was wanted.
    await query(`kill connection ${id}`).catch(() => undefined);
  }
}
