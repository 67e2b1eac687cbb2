import { type Instance, LIVING_MS } from '../domain/instances.js';
import type { Dialect, Sql } from './sql.js';

interface Row {
  id: string;
  version: string;
  host: string;
  started_at: number;
  seen_at: number;
}

/** A handful of rows, so that no statement here needs an index beside the key. */
export async function heartbeat(
  sql: Sql & { readonly dialect: Dialect },
  { id, version, host }: Pick<Instance, 'id' | 'version' | 'host'>,
): Promise<void> {
  const { now } = sql.dialect;
  const known = await sql.run(`update escrow_instance set seen_at = ${now} where id = ?`, [id]);
  if (known === 0) {
    await sql.insertRows({
      table: 'escrow_instance',
      columns: ['id', 'version', 'host', 'started_at', 'seen_at'],
      expressions: ['?', '?', '?', `${now} + ?`, `${now} + ?`],
      rows: [[id, version, host, 0, 0]],
      onDuplicate: 'ignore',
    });
  }
  await sql.run(`delete from escrow_instance where seen_at < ${now} - ?`, [LIVING_MS]);
}

export async function livingInstances(sql: Sql, { now }: Dialect): Promise<Instance[]> {
  const rows = await sql.all<Row>(
    `select id, version, host, started_at, seen_at from escrow_instance
     where seen_at >= ${now} - ? order by started_at, id`,
    [LIVING_MS],
  );
  return rows.map(({ id, version, host, started_at, seen_at }) => ({
    id,
    version,
    host,
    startedAt: started_at,
    seenAt: seen_at,
  }));
}

export async function removeInstance(sql: Sql, id: string): Promise<void> {
  await sql.run('delete from escrow_instance where id = ?', [id]);
}
