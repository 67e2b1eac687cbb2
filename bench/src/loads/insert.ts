import { createRequire } from 'node:module';
import { createConnection } from 'mysql2/promise';
import { uuidv7obj } from 'uuidv7';
import { z } from 'zod';
import { CommonSettings, closedLoops, Latencies, serveLoad } from './load.js';

/*
 * One durable single-row INSERT after the other, on one connection: what a prepare that waits for
 * nobody can at best come near to. The row has a 16-byte key in order and a body of `dataBytes`.
 */

const Settings = CommonSettings.extend({
  /** `mysql://…` of an empty database, or `sqlite:<path>` of a new file. */
  storeUrl: z.string(),
  dataBytes: z.number().int().positive(),
});

const CREATE =
  'create table row_to_insert (id binary(16) not null primary key, body text not null)';
const INSERT = 'insert into row_to_insert (id, body) values (?, ?)';

interface Table {
  insert(id: Buffer, body: string): Promise<unknown>;
  close(): Promise<void>;
}

await serveLoad(Settings, async (settings: z.output<typeof Settings>) => {
  const { storeUrl } = settings;
  const table = storeUrl.startsWith('sqlite:')
    ? openSqlite(storeUrl.slice('sqlite:'.length))
    : await openMysql(storeUrl);
  const body = 'x'.repeat(settings.dataBytes);

  async function run(seconds: number) {
    const latencies = new Latencies();
    const startedAt = performance.now();
    const operations = await closedLoops({ ...settings, seconds }, async () => {
      const id = Buffer.from(uuidv7obj().bytes);
      const from = performance.now();
      await table.insert(id, body);
      latencies.add(performance.now() - from);
    });
    const elapsed = (performance.now() - startedAt) / 1000;
    return { operations, seconds: elapsed, latencyMs: { insert: latencies.quantiles() } };
  }

  await run(settings.warmUpSeconds);
  return { run: () => run(settings.seconds), close: table.close };
});

async function openMysql(url: string): Promise<Table> {
  const connection = await createConnection(url);
  await connection.query('drop table if exists row_to_insert');
  await connection.query(`${CREATE} engine = InnoDB`);
  return {
    insert: (id, body) => connection.execute(INSERT, [id, body]),
    close: () => connection.end(),
  };
}

interface SqliteConnection {
  exec(sql: string): void;
  prepare(sql: string): { run(...values: unknown[]): unknown };
  close(): void;
}

/** The driver that the broker takes on this Node, as durable as the broker's own store. */
function openSqlite(path: string): Table {
  const require = createRequire(import.meta.url);
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const Connection = (
    major > 22 || (major === 22 && minor >= 13)
      ? require('node:sqlite').DatabaseSync
      : require('better-sqlite3')
  ) as new (
    path: string,
  ) => SqliteConnection;
  const connection = new Connection(path);
  for (const pragma of ['locking_mode = exclusive', 'journal_mode = wal', 'synchronous = full']) {
    connection.exec(`pragma ${pragma}`);
  }
  connection.exec('drop table if exists row_to_insert');
  connection.exec(CREATE);
  const insert = connection.prepare(INSERT);
  return {
    insert: async (id, body) => insert.run(id, body),
    close: async () => connection.close(),
  };
}
