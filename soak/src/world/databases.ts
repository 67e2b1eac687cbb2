import {
  createMysqlDatabase,
  type PrivateMysql,
  type ServerSet,
  startPrivateMysql,
} from '@escrowmq/local-servers';
import { createConnection, createPool, type Pool } from 'mysql2/promise';

/*
 * Two servers of MariaDB or MySQL, so that the brokers' store can fail while the services' databases do not.
 * Services log in as a user who may do everything in their database and nothing to the server:
 * an administrator would write on while the server is read-only.
 */

const USER = 'soak';
const PASSWORD = 'soak';

export interface DatabaseServer {
  name: string;
  server: PrivateMysql;
  /** As administrator, past all proxies. */
  admin: Pool;
  /** An empty database. @returns its name */
  create(name: string): Promise<string>;
  /** The way of a service to a database, through a port. */
  url(port: number, database: string): string;
}

export async function startDatabaseServer(
  name: string,
  servers: ServerSet | undefined,
): Promise<DatabaseServer> {
  const server = await startPrivateMysql({
    servers,
    // What a crash leaves is in the redo log, synced at every commit; a replica is not part of this.
    binaryLog: false,
    // Half a minute for a lock would outlast most faults; the SDKs set their own for checks.
    conf: ['innodb_lock_wait_timeout = 10'],
  });
  const admin = createPool({ uri: server.url, connectionLimit: 2 });
  await admin.query(`create user '${USER}'@'%' identified by '${PASSWORD}'`);
  await admin.query(`create user '${USER}'@'localhost' identified by '${PASSWORD}'`);
  return {
    name,
    server,
    admin,
    async create(database) {
      await createMysqlDatabase(server.url, database);
      for (const host of ['%', 'localhost']) {
        await admin.query(`grant all on ${database}.* to '${USER}'@'${host}'`);
      }
      return database;
    },
    url: (port, database) => `mysql://${USER}:${PASSWORD}@127.0.0.1:${port}/${database}`,
  };
}

/** Past all proxies, on a connection of its own that a restart of the server can't have broken. */
export async function asAdmin<T>(
  { server }: DatabaseServer,
  work: (query: (sql: string) => Promise<unknown>) => Promise<T>,
): Promise<T> {
  const connection = await createConnection(server.url);
  try {
    return await work(async (sql) => (await connection.query(sql))[0]);
  } finally {
    connection.destroy();
  }
}
