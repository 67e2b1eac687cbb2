import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { chown } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import type { PostgresBinaries } from './binaries.js';
import { inheritedEnvironment } from './inherited-environment.js';
import { Lifeline, type ProcessOptions, type ServerProcess } from './lifeline.js';
import { postgresOf } from './programs.js';
import type { ServerSet } from './server-sets.js';
import { onFreePorts, waitUntilReady } from './start-up.js';

/** It starts in 0.2 s; after a crash it replays its log first, on a machine under load. */
const START_DEADLINE_MS = 60_000;

/** initdb takes about a second. */
const INSTALL_DEADLINE_MS = 60_000;

/** A fast stop takes 0.1 s, plus its checkpoint. */
const STOP_GRACE_MS = 30_000;

/** The kernel's limit for the path of a socket is 108 bytes with its final zero (macOS: 104). */
const SOCKET_PATH_BYTES_MAX = 103;

const USER = 'escrow';
const PASSWORD = 'escrow';
const DATABASE = 'escrow';

/** The server refuses to run as root: the user that its package makes, or the one that owns nothing. */
const UNPRIVILEGED_USERS = ['postgres', 'nobody'];

export interface PrivatePostgresOptions {
  /** Lines for postgresql.conf, after our own. @default none */
  conf?: readonly string[];
  /** The folder in which the server's own folder is made. @default the system's temporary folder */
  parentDir?: string;
  /** Which set it is of. @default what ESCROW_TEST_SERVERS names, else the machine's packages */
  servers?: ServerSet | undefined;
}

/**
 * A PostgreSQL server of our own on loopback, as durable as production's. It ends, and its folder
 * goes, when this process does.
 */
export class PrivatePostgres {
  readonly port: number;
  /** `postgres://user:password@127.0.0.1:<port>/<database>`; the user may do everything. */
  readonly url: string;
  /** The server's own folder, with `postgres.log`. */
  readonly dir: string;
  readonly #lifeline: Lifeline;
  readonly #binaries: PostgresBinaries;
  readonly #user: SystemUser | undefined;
  #server: ServerProcess | undefined;

  private constructor(lifeline: Lifeline, binaries: PostgresBinaries, settings: Settings) {
    this.#lifeline = lifeline;
    this.#binaries = binaries;
    this.#user = settings.user;
    this.dir = lifeline.dir;
    this.port = settings.port;
    this.url = `postgres://${USER}:${PASSWORD}@127.0.0.1:${settings.port}/${DATABASE}`;
  }

  /** @internal Use `startPrivatePostgres`. */
  static async launch(binaries: PostgresBinaries, settings: Settings): Promise<PrivatePostgres> {
    const lifeline = await Lifeline.open('postgres', settings.options.parentDir);
    try {
      const postgres = new PrivatePostgres(lifeline, binaries, settings);
      await postgres.#writeConfiguration(settings.options);
      await postgres.#createDataFolder();
      await postgres.#start();
      return postgres;
    } catch (error) {
      await lifeline.close();
      throw error;
    }
  }

  /** A graceful stop, which does not wait for clients; the data stays for `restart()`. */
  async stop(): Promise<void> {
    await this.#server?.terminate(STOP_GRACE_MS, 'SIGINT');
  }

  /** SIGKILL to every process of the server, as a crash would do; the data stays for `restart()`. */
  async kill(): Promise<void> {
    const server = this.#server;
    if (server === undefined || !server.running) return;
    // Every session of PostgreSQL leads a process group of its own and might still finish a COMMIT
    // after its parent was killed. A parent that is stopped starts no further one meanwhile.
    process.kill(server.pid, 'SIGSTOP');
    for (const pid of await childrenOf(server.pid)) killIfThere(pid);
    await server.kill();
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
    return createPostgresDatabase(this.url, name);
  }

  /** Ends the server and deletes its folder. The handle is of no use afterwards. */
  async remove(): Promise<void> {
    // Not by SIGKILL: a server that ends by itself takes its shared memory segment with it.
    await this.#server?.terminate(STOP_GRACE_MS, 'SIGQUIT');
    await this.#lifeline.close();
  }

  async #createDataFolder(): Promise<void> {
    const install = this.#lifeline.start({
      root: this.#binaries.root,
      ...this.#unprivileged(this.#binaries.initdb, [
        `--pgdata=${join(this.dir, 'data')}`,
        `--username=${USER}`,
        `--pwfile=${join(this.dir, 'password')}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        // A machine that fails now has no use for this folder; the server itself syncs.
        '--no-sync',
      ]),
      log: 'install.log',
    });
    const code = await install.ended(INSTALL_DEADLINE_MS);
    if (code !== 0) {
      throw new Error(
        `PostgreSQL could not make a data folder; it printed last:\n${install.logTail()}`,
      );
    }
  }

  async #start(): Promise<void> {
    this.#server = this.#lifeline.start({
      root: this.#binaries.root,
      ...this.#unprivileged(this.#binaries.server, [
        '-D',
        join(this.dir, 'data'),
        '-c',
        `config_file=${join(this.dir, 'postgresql.conf')}`,
      ]),
      log: 'postgres.log',
    });
    await waitUntilReady(this.#server, () => this.#answers(), {
      name: `PostgreSQL on port ${this.port}`,
      deadlineMs: START_DEADLINE_MS,
    });
  }

  async #answers(): Promise<void> {
    await withClient(maintenanceUrl(this.url), async (client) => {
      const { rows } = await client.query('show data_directory');
      // Another private server has the same user, so the login alone does not prove who answers.
      if (rows[0]?.data_directory !== join(this.dir, 'data')) {
        throw new Error(`port ${this.port} is answered by another server`);
      }
      const { rowCount } = await client.query('select 1 from pg_database where datname = $1', [
        DATABASE,
      ]);
      if (rowCount === 0) await client.query(`create database ${DATABASE}`);
    });
  }

  async #writeConfiguration(options: PrivatePostgresOptions): Promise<void> {
    const sockets = join(this.dir, 'sockets');
    if (Buffer.byteLength(join(sockets, `.s.PGSQL.${this.port}`)) > SOCKET_PATH_BYTES_MAX) {
      throw new Error(
        `${sockets} is too long for a socket (${SOCKET_PATH_BYTES_MAX} bytes): give a shorter parentDir`,
      );
    }
    const own = [join(this.dir, 'data'), sockets, join(this.dir, 'password')];
    for (const folder of own.slice(0, 2)) mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(this.dir, 'password'), PASSWORD, { mode: 0o600 });
    const lines = [
      "listen_addresses = '127.0.0.1'",
      `port = ${this.port}`,
      `unix_socket_directories = '${sockets}'`,
      'fsync = on',
      'synchronous_commit = on',
      'full_page_writes = on',
      'shared_buffers = 32MB',
      // In the data folder: what lies in /dev/shm outlives a server that was killed.
      'dynamic_shared_memory_type = mmap',
      // Test files share one server, each with a pool of its own.
      'max_connections = 300',
      ...(options.conf ?? []),
    ];
    writeFileSync(join(this.dir, 'postgresql.conf'), `${lines.join('\n')}\n`);
    if (this.#user === undefined) return;
    // Others may pass through the private folder, and the server owns what it needs there.
    chmodSync(this.dir, 0o711);
    for (const path of own) await chown(path, this.#user.uid, this.#user.gid);
  }

  /** The command as the server's user, without a process in between that a signal would meet. */
  #unprivileged(command: string, args: string[]): Omit<ProcessOptions, 'log'> {
    const env = { ...inheritedEnvironment(/^(PG|POSTGRES|NOTIFY_SOCKET)/), LC_ALL: 'C' };
    if (this.#user === undefined) return { command, args, env };
    const { uid, gid } = this.#user;
    return {
      command: 'setpriv',
      args: [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', command, ...args],
      env: { ...env, HOME: join(this.dir, 'data') },
    };
  }
}

interface Settings {
  port: number;
  /** Whom the server runs as; nobody else when this process is not root's. */
  user: SystemUser | undefined;
  options: PrivatePostgresOptions;
}

interface SystemUser {
  uid: number;
  gid: number;
}

/**
 * Starts a PostgreSQL server that belongs to this process, and installs it first where that is
 * possible (see `ensureServerPackages`). Ready means that it accepts a login over TCP. Run by root,
 * it runs as the user `postgres`, or `nobody`, and its folder is theirs.
 *
 * @throws Error when no server is installed and none can be, or it does not start; it carries the log
 * @example
 * const postgres = await startPrivatePostgres();
 * try {
 *   const pool = new Pool({ connectionString: await postgres.createDatabase() });
 * } finally {
 *   await postgres.remove();
 * }
 */
export async function startPrivatePostgres(
  options: PrivatePostgresOptions = {},
): Promise<PrivatePostgres> {
  const binaries = await postgresOf(options.servers);
  const user = process.getuid?.() === 0 ? await unprivilegedUser(binaries.root) : undefined;
  return onFreePorts(1, ([port = 0]) => PrivatePostgres.launch(binaries, { port, user, options }));
}

/**
 * Makes an empty database on a server whose user may do that.
 * @param serverUrl `postgres://user:password@host:port`, with or without a database
 * @param name @default a name nobody has used
 * @returns the new database's URL
 */
export async function createPostgresDatabase(
  serverUrl: string,
  name: string = `escrow_${randomBytes(8).toString('hex')}`,
): Promise<string> {
  await withClient(maintenanceUrl(serverUrl), (client) =>
    client.query(`create database ${client.escapeIdentifier(name)}`),
  );
  const url = new URL(serverUrl);
  url.pathname = `/${encodeURIComponent(name)}`;
  return url.href;
}

/**
 * Drops the databases whose names begin with `prefix`, with whatever is still connected to them.
 * @param serverUrl `postgres://user:password@host:port`, with or without a database
 */
export async function dropPostgresDatabases(serverUrl: string, prefix: string): Promise<void> {
  await withClient(maintenanceUrl(serverUrl), async (client) => {
    const { rows } = await client.query(
      'select datname from pg_database where left(datname, $1) = $2',
      [prefix.length, prefix],
    );
    for (const { datname } of rows) {
      await client.query(`drop database ${client.escapeIdentifier(String(datname))} with (force)`);
    }
  });
}

/** Every server has the database `postgres`, which nobody needs to be the only one in. */
function maintenanceUrl(serverUrl: string): string {
  const url = new URL(serverUrl);
  url.pathname = '/postgres';
  return url.href;
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  // Without a listener, a connection lost between two statements would end the process.
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** A set has users of its own, by numbers that may be somebody else's outside. */
async function unprivilegedUser(root: string | undefined): Promise<SystemUser> {
  const idOf = async (...flags: string[]) => {
    const [command = '', ...args] = [...(root === undefined ? [] : ['chroot', root]), 'id'];
    const { stdout } = await promisify(execFile)(command, [...args, ...flags]);
    return Number(stdout.trim());
  };
  for (const name of UNPRIVILEGED_USERS) {
    try {
      const [uid, gid] = await Promise.all([idOf('-u', name), idOf('-g', name)]);
      return { uid, gid };
    } catch {
      // No such user: the next one.
    }
  }
  throw new Error(
    `PostgreSQL does not run as root, and there is no user ${UNPRIVILEGED_USERS.join(' or ')}`,
  );
}

/** Process ids. */
async function childrenOf(parent: number): Promise<number[]> {
  const listed = `/proc/${parent}/task/${parent}/children`;
  if (existsSync(listed)) {
    return readFileSync(listed, 'utf8')
      .split(' ')
      .filter((pid) => pid.trim() !== '')
      .map(Number);
  }
  // Not Linux, where small systems have no ps.
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,ppid=']);
  return stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([pid, ppid]) => (pid !== undefined && ppid === parent ? [pid] : []));
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    // ESRCH: it ended by itself since it was listed.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
