import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import {
  dropPostgresDatabases,
  type PrivateMysql,
  type PrivatePostgres,
  type PrivateRabbitmq,
  startPrivateMysql,
  startPrivatePostgres,
  startPrivateRabbitmq,
} from '@escrowmq/local-servers';
import { afterEach, describe, expect, test } from '@jest/globals';
import { connect } from 'amqplib';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import pg from 'pg';
import { onFreePorts } from '../../local-servers/src/start-up.js';
import { freshMysqlDatabase, freshPostgresDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const started: Array<PrivateRabbitmq | PrivateMysql | PrivatePostgres> = [];

afterEach(async () => {
  await Promise.all(started.splice(0).map((server) => server.remove()));
});

async function rabbitmq(): Promise<PrivateRabbitmq> {
  const server = await startPrivateRabbitmq();
  started.push(server);
  return server;
}

async function mysql(): Promise<PrivateMysql> {
  const server = await startPrivateMysql();
  started.push(server);
  return server;
}

async function postgres(): Promise<PrivatePostgres> {
  const server = await startPrivatePostgres();
  started.push(server);
  return server;
}

/** Runs one statement on a connection of its own. */
async function ask(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url });
  // A kill ends this connection with an error, which is the point and no failure.
  client.on('error', () => {});
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end();
  }
}

describe('a private RabbitMQ', () => {
  test('two run at once, beside the shared one, and see nothing of each other', async () => {
    const [first, second] = await Promise.all([rabbitmq(), rabbitmq()]);
    const connection = await connect(first.url);
    const channel = await connection.createChannel();
    await channel.assertQueue('only-here');
    await connection.close();

    expect(await first.ctl('list_queues', 'name')).toContain('only-here');
    expect(await second.ctl('list_queues', 'name')).not.toContain('only-here');
    expect(new Set([first.port, second.port, Number(new URL(rabbitmqUrl()).port)]).size).toBe(3);
  });

  test('a durable message in a classic queue survives kill and restart', async () => {
    const server = await rabbitmq();
    const declaring = await connect(server.url);
    await (await declaring.createChannel()).assertQueue('kept', { durable: true });
    await declaring.close();
    // RabbitMQ 3.10 may forget a queue that was declared just before a kill; not after a stop.
    await server.restart();

    const publishing = await connect(server.url);
    // The kill closes this connection with an error, which is the point and no failure.
    publishing.on('error', () => {});
    const confirming = await publishing.createConfirmChannel();
    confirming.on('error', () => {});
    confirming.sendToQueue('kept', Buffer.from('still here'), { persistent: true });
    await confirming.waitForConfirms();

    await server.kill();
    await expect(connect(server.url)).rejects.toThrow('ECONNREFUSED');
    await server.restart();

    const connection = await connect(server.url);
    const channel = await connection.createChannel();
    const message = await channel.get('kept', { noAck: true });
    await connection.close();
    expect(message).toMatchObject({ content: Buffer.from('still here') });
  });

  test('its folder and its processes are gone after remove', async () => {
    const server = await rabbitmq();
    expect(processesIn(server.dir)).not.toEqual([]);
    await server.remove();
    expect(existsSync(server.dir)).toBe(false);
    await until('no process of the server is left', () => processesIn(server.dir).length === 0);
  });
});

describe('a private MySQL', () => {
  test('is as durable as production: every commit is synced, with a row binary log', async () => {
    const server = await mysql();
    const connection = await createConnection(server.url);
    const [rows] = await connection.query<RowDataPacket[]>(
      `select @@innodb_flush_log_at_trx_commit as redo, @@sync_binlog as binlog,
        @@log_bin as logging, @@binlog_format as format`,
    );
    await connection.end();
    expect(rows).toEqual([{ redo: 1, binlog: 1, logging: 1, format: 'ROW' }]);
  });

  test('a committed row survives kill and restart on the same port', async () => {
    const server = await mysql();
    const url = await server.createDatabase();
    const before = await createConnection(url);
    // The kill ends this connection with an error, which is the point and no failure.
    before.on('error', () => {});
    await before.query('create table kept (id int primary key)');
    await before.query('insert into kept values (7)');

    await server.kill();
    await server.restart();

    const after = await createConnection(url);
    const [rows] = await after.query<RowDataPacket[]>('select id from kept');
    await after.end();
    expect(rows).toEqual([{ id: 7 }]);
  });
});

describe('a private PostgreSQL', () => {
  test('is as durable as production: every commit is synced', async () => {
    const server = await postgres();
    const { rows } = await ask(
      server.url,
      `select name, setting from pg_settings
       where name in ('fsync', 'synchronous_commit', 'full_page_writes')`,
    );
    expect(rows.map(({ setting }) => setting)).toEqual(['on', 'on', 'on']);
  });

  test('a committed row survives kill and restart, and no process survives the kill', async () => {
    const server = await postgres();
    const url = await server.createDatabase();
    await ask(url, 'create table kept (id int primary key)');
    await ask(url, 'insert into kept values (7)');
    const busy = ask(url, 'select pg_sleep(60)').catch((error: unknown) => error);
    await until('it sleeps', async () => {
      const sleeping = `select 1 from pg_stat_activity where wait_event = 'PgSleep'`;
      return (await ask(url, sleeping)).rowCount === 1;
    });

    await server.kill();
    expect(await busy).toBeInstanceOf(Error);
    // The one that cleans up after all of them.
    expect(processesIn(server.dir)).toHaveLength(1);
    await server.restart();

    expect((await ask(url, 'select id from kept')).rows).toEqual([{ id: 7 }]);
  });

  test('its folder and its processes are gone after remove', async () => {
    const server = await postgres();
    expect(processesIn(server.dir)).not.toEqual([]);
    await server.remove();
    expect(existsSync(server.dir)).toBe(false);
    expect(processesIn(server.dir)).toEqual([]);
  });

  test('databases are dropped by the beginning of their names, and no others', async () => {
    const server = await postgres();
    for (const name of ['ours_1', 'ours_2', 'oursX', 'theirs']) await server.createDatabase(name);
    await dropPostgresDatabases(server.url, 'ours_');
    const { rows } = await ask(
      server.url,
      `select datname from pg_database where datname ~ '^(ours|theirs)' order by datname`,
    );
    expect(rows.map(({ datname }) => datname)).toEqual(['oursX', 'theirs']);
  });
});

test('every fresh database of the shared PostgreSQL is another one, and empty', async () => {
  const [first, second] = await Promise.all([freshPostgresDatabase(), freshPostgresDatabase()]);
  expect(first).not.toBe(second);
  const { rows } = await ask(first, `select * from pg_tables where schemaname = 'public'`);
  expect(rows).toEqual([]);
});

test('every fresh database is another one, and empty', async () => {
  const [first, second] = await Promise.all([freshMysqlDatabase(), freshMysqlDatabase()]);
  expect(first).not.toBe(second);
  const connection = await createConnection(first);
  const [tables] = await connection.query<RowDataPacket[]>('show tables');
  await connection.end();
  expect(tables).toEqual([]);
});

test('SIGKILL of the process that started servers leaves no process and no folder', async () => {
  const parent = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `import { startPrivateMysql, startPrivatePostgres, startPrivateRabbitmq } from '@escrowmq/local-servers';
       const servers = await Promise.all(
         [startPrivateRabbitmq, startPrivateMysql, startPrivatePostgres].map((start) => start()),
       );
       console.log(JSON.stringify(servers.map((server) => server.dir)));
       setInterval(() => {}, 60_000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [printed] = await once(parent.stdout, 'data');
  const dirs: string[] = JSON.parse(String(printed));
  expect(dirs).toHaveLength(3);
  expect(dirs.filter((dir) => processesIn(dir).length > 0)).toEqual(dirs);

  parent.kill('SIGKILL');

  await until('processes and folders are gone', () =>
    dirs.every((dir) => !existsSync(dir) && processesIn(dir).length === 0),
  );
});

test('a start that finds its port taken is repeated on another one', async () => {
  const squatter = createServer();
  const tried: number[] = [];
  const result = await onFreePorts(1, async ([port = 0]) => {
    tried.push(port);
    if (tried.length > 1) return 'started';
    await once(squatter.listen(port, '127.0.0.1'), 'listening');
    throw new Error('address already in use');
  });
  squatter.close();
  expect(result).toBe('started');
  expect(new Set(tried).size).toBe(2);
});

test('a start that fails for another reason is not repeated', async () => {
  let starts = 0;
  const start = onFreePorts(1, async () => {
    starts += 1;
    throw new Error('the disk is full');
  });
  await expect(start).rejects.toThrow('the disk is full');
  expect(starts).toBe(1);
});

/** Process ids whose command line or environment names the folder (Linux only). */
function processesIn(dir: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(dir) ||
          readFileSync(`/proc/${pid}/environ`, 'utf8').includes(dir)
        );
      } catch {
        // It ended between the listing and the reading.
        return false;
      }
    });
}
