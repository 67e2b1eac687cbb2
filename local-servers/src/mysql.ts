import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import type { MysqlBinaries } from './binaries.js';
import { inheritedEnvironment } from './inherited-environment.js';
import { Lifeline, type ServerProcess } from './lifeline.js';
import { mysqlOf } from './programs.js';
import type { ServerSet } from './server-sets.js';
import { onFreePorts, waitUntilReady } from './start-up.js';

/** MariaDB starts in 0.3 s, MySQL 8 in a few; the rest is for a machine under load. */
const START_DEADLINE_MS = 60_000;

/** Making the data folder took 1 to 2 s with MariaDB; MySQL 8 is known to take 10 times that. */
const INSTALL_DEADLINE_MS = 120_000;

/** A graceful stop took 1.3 s. */
const STOP_GRACE_MS = 30_000;

/** The kernel's limit for the path of a socket is 108 bytes with its final zero (macOS: 104). */
const SOCKET_PATH_BYTES_MAX = 103;

const USER = 'escrow';
const PASSWORD = 'escrow';
const DATABASE = 'escrow';

export interface PrivateMysqlOptions {
  /** Writes a row-format binary log, synced at every commit, as production does. @default true */
  binaryLog?: boolean;
  /** Lines for the `[mysqld]` section of my.cnf, after our own. @default none */
  conf?: readonly string[];
  /** The folder in which the server's own folder is made. @default the system's temporary folder */
  parentDir?: string;
  /** Which set it is of. @default what ESCROW_TEST_SERVERS names, else the machine's packages */
  servers?: ServerSet | undefined;
}

/**
 * A MariaDB or MySQL server of our own on loopback, as durable as production's. It ends, and its
 * folder goes, when this process does.
 */
export class PrivateMysql {
  readonly port: number;
  /** Path of the Unix socket. */
  readonly socket: string;
  /** `mysql://user:password@127.0.0.1:<port>/<database>`; the user may do everything. */
  readonly url: string;
  /** The server's own folder, with `mysql.log`. */
  readonly dir: string;
  readonly #lifeline: Lifeline;
  readonly #binaries: MysqlBinaries;
  #server: ServerProcess | undefined;

  private constructor(lifeline: Lifeline, binaries: MysqlBinaries, port: number) {
    this.#lifeline = lifeline;
    this.#binaries = binaries;
    this.dir = lifeline.dir;
    this.port = port;
    this.socket = join(lifeline.dir, 'mysql.sock');
    this.url = `mysql://${USER}:${PASSWORD}@127.0.0.1:${port}/${DATABASE}`;
  }

  /** @internal Use `startPrivateMysql`. */
  static async launch(
    binaries: MysqlBinaries,
    port: number,
    options: PrivateMysqlOptions,
  ): Promise<PrivateMysql> {
    const lifeline = await Lifeline.open('mysql', options.parentDir);
    try {
      const mysql = new PrivateMysql(lifeline, binaries, port);
      mysql.#writeConfiguration(options);
      await mysql.#createDataFolder();
      await mysql.#start();
      return mysql;
    } catch (error) {
      await lifeline.close();
      throw error;
    }
  }

  /** A graceful stop; the data stays for `restart()`. */
  async stop(): Promise<void> {
    await this.#server?.terminate(STOP_GRACE_MS);
  }

  /** SIGKILL, as a crash would do; the data stays for `restart()`. */
  async kill(): Promise<void> {
    await this.#server?.kill();
  }

  /** Stops gracefully what still runs, then starts on the same data and port. */
  async restart(): Promise<void> {
    await this.stop();
    await this.#start();
  }

  /**
   * Makes an empty database.
   * @param name @default a name nobody has used
   * @returns its URL, for the same user
   */
  async createDatabase(name?: string): Promise<string> {
    return createMysqlDatabase(this.url, name);
  }

  /** Kills the server and deletes its folder. The handle is of no use afterwards. */
  async remove(): Promise<void> {
    await this.#lifeline.close();
  }

  async #createDataFolder(): Promise<void> {
    const defaults = `--defaults-file=${join(this.dir, 'my.cnf')}`;
    const { flavour } = this.#binaries;
    const install = this.#lifeline.start({
      root: this.#binaries.root,
      command: flavour === 'mariadb' ? this.#binaries.install : this.#binaries.server,
      args:
        flavour === 'mariadb'
          ? [
              defaults,
              '--auth-root-authentication-method=normal',
              '--skip-test-db',
              '--skip-name-resolve',
            ]
          : [defaults, '--initialize-insecure'],
      env: inheritedEnvironment(/^(MYSQL|MARIADB)/),
      log: 'install.log',
    });
    const code = await install.ended(INSTALL_DEADLINE_MS);
    if (code !== 0) {
      throw new Error(
        `${flavour} could not make a data folder; it printed last:\n${install.logTail()}`,
      );
    }
  }

  async #start(): Promise<void> {
    this.#server = this.#lifeline.start({
      root: this.#binaries.root,
      command: this.#binaries.server,
      args: [`--defaults-file=${join(this.dir, 'my.cnf')}`],
      env: inheritedEnvironment(/^(MYSQL|MARIADB)/),
      log: 'mysql.log',
    });
    await waitUntilReady(this.#server, () => this.#answers(), {
      name: `${this.#binaries.flavour} on port ${this.port}`,
      deadlineMs: START_DEADLINE_MS,
    });
  }

  async #answers(): Promise<void> {
    const connection = await createConnection(this.url);
    try {
      const [rows] = await connection.query<RowDataPacket[]>('select @@socket as socket');
      // Another private server has the same user, so the login alone does not prove who answers.
      if (rows[0]?.socket !== this.socket) {
        throw new Error(`port ${this.port} is answered by another server`);
      }
    } finally {
      await connection.end();
    }
  }

  #writeConfiguration(options: PrivateMysqlOptions): void {
    if (Buffer.byteLength(this.socket) > SOCKET_PATH_BYTES_MAX) {
      throw new Error(
        `${this.socket} is too long for a socket (${SOCKET_PATH_BYTES_MAX} bytes): give a shorter parentDir`,
      );
    }
    mkdirSync(join(this.dir, 'tmp'));
    writeFileSync(join(this.dir, 'init.sql'), INIT_SQL);
    const lines = [
      '[mysqld]',
      `datadir = ${join(this.dir, 'data')}`,
      `tmpdir = ${join(this.dir, 'tmp')}`,
      `socket = ${this.socket}`,
      `pid-file = ${join(this.dir, 'mysql.pid')}`,
      `init-file = ${join(this.dir, 'init.sql')}`,
      `port = ${this.port}`,
      'bind-address = 127.0.0.1',
      'skip-name-resolve',
      // Without it the server refuses to run as root.
      `user = ${userInfo().username}`,
      'character-set-server = utf8mb4',
      'innodb_buffer_pool_size = 64M',
      'innodb_flush_log_at_trx_commit = 1',
      'sync_binlog = 1',
      // loose: known to one of the two servers only, or to some of their versions.
      'loose-innodb_log_file_size = 32M',
      'loose-mysqlx = 0',
      // MySQL's own default is a folder that only its full package makes, and it does not start without.
      'secure-file-priv =',
      // Test files share one server, each with a pool of its own.
      'max_connections = 500',
      ...(options.binaryLog === false
        ? ['skip-log-bin']
        : [
            `log-bin = ${join(this.dir, 'data', 'binlog')}`,
            'binlog_format = ROW',
            'server-id = 1',
          ]),
      ...(options.conf ?? []),
    ];
    writeFileSync(join(this.dir, 'my.cnf'), `${lines.join('\n')}\n`);
  }
}

/** Runs at every start of the server, so each line may be repeated; one statement a line. */
const INIT_SQL = [
  `create database if not exists ${DATABASE};`,
  `create user if not exists '${USER}'@'%' identified by '${PASSWORD}';`,
  `create user if not exists '${USER}'@'localhost' identified by '${PASSWORD}';`,
  `grant all on *.* to '${USER}'@'%' with grant option;`,
  `grant all on *.* to '${USER}'@'localhost' with grant option;`,
  '',
].join('\n');

/**
 * Starts a MariaDB or MySQL server that belongs to this process, and installs it first where that
 * is possible (see `ensureServerPackages`). Ready means that it accepts a login over TCP.
 *
 * @throws Error when no server is installed and none can be, or it does not start; it carries the log
 * @example
 * const mysql = await startPrivateMysql();
 * try {
 *   const pool = createPool(await mysql.createDatabase());
 * } finally {
 *   await mysql.remove();
 * }
 */
export async function startPrivateMysql(options: PrivateMysqlOptions = {}): Promise<PrivateMysql> {
  const binaries = await mysqlOf(options.servers);
  return onFreePorts(1, ([port = 0]) => PrivateMysql.launch(binaries, port, options));
}

/**
 * Makes an empty database on a server whose user may do that.
 * @param serverUrl `mysql://user:password@host:port`, with or without a database
 * @param name @default a name nobody has used
 * @returns the new database's URL
 */
export async function createMysqlDatabase(
  serverUrl: string,
  name: string = `escrow_${randomBytes(8).toString('hex')}`,
): Promise<string> {
  const url = new URL(serverUrl);
  url.pathname = '/';
  const connection = await createConnection(url.href);
  try {
    await connection.query(`create database ${connection.escapeId(name)}`);
  } finally {
    await connection.end();
  }
  url.pathname = `/${encodeURIComponent(name)}`;
  return url.href;
}

/**
 * Drops the databases whose names begin with `prefix`.
 * @param serverUrl `mysql://user:password@host:port`, with or without a database
 */
export async function dropMysqlDatabases(serverUrl: string, prefix: string): Promise<void> {
  const url = new URL(serverUrl);
  url.pathname = '/';
  const connection = await createConnection(url.href);
  try {
    const [rows] = await connection.query<RowDataPacket[]>(
      'select schema_name as name from information_schema.schemata where left(schema_name, ?) = ?',
      [prefix.length, prefix],
    );
    for (const { name } of rows) {
      await connection.query(`drop database ${connection.escapeId(String(name))}`);
    }
  } finally {
    await connection.end();
  }
}
