import type { Database } from './sql.js';

/** Nobody reads its value; that it changes is what counts. */
const NAME = 'proof';

/**
 * Changes one row, durably, which is the cheapest thing that fails wherever a prepare would: on a server
 * that is read-only, a replica, a cluster without its majority, a full disk. A SELECT answers on all of
 * them, and so does an UPDATE that changes nothing where there is no majority.
 */
export async function proveWritable(database: Database): Promise<void> {
  const changed = await database.run(
    `update escrow_counter set value = value + 1 where name = '${NAME}'`,
  );
  if (changed > 0) return;
  await database.insertRows({
    table: 'escrow_counter',
    columns: ['name', 'value'],
    rows: [[NAME, 0]],
    onDuplicate: 'ignore',
  });
}
