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
  // Not from information_schema: MySQL 9.7 fails there when a statement holds what utf8mb3 can't (3854).
  const rows = (await query('show processlist')) as { Id: number; User: string }[];
  for (const { Id: id } of rows.filter(({ User: user }) => user === 'soak')) {
    // It may have ended in between, which is what was wanted.
    await query(`kill connection ${id}`).catch(() => undefined);
  }
}
