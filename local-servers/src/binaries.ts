import { accessSync, constants, existsSync, readdirSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';

/**
 * Folders that hold RabbitMQ's own scripts. Debian's `/usr/sbin/rabbitmq-server` is left out on
 * purpose: it changes to `/var/lib/rabbitmq` and refuses everybody but root and rabbitmq, while the
 * scripts it wraps run as any user.
 */
const RABBITMQ_SCRIPT_FOLDERS = [
  '/usr/lib/rabbitmq/bin',
  '/opt/rabbitmq/sbin',
  '/opt/homebrew/opt/rabbitmq/sbin',
  '/usr/local/opt/rabbitmq/sbin',
];

/** Servers are often installed where an unprivileged user's PATH does not look. */
const SERVER_FOLDERS = [
  '/usr/sbin',
  '/usr/local/sbin',
  '/usr/libexec',
  '/opt/homebrew/opt/mariadb/bin',
  '/opt/homebrew/opt/mysql/bin',
  '/opt/homebrew/bin',
];

/** Debian keeps one folder for each major version of PostgreSQL, none of them on the PATH. */
const POSTGRES_VERSION_FOLDERS = ['/usr/lib/postgresql'];
const POSTGRES_FOLDERS = ['/opt/homebrew/opt/postgresql/bin', '/usr/local/opt/postgresql/bin'];

/** Paths are those that the programs themselves see. */
interface Rooted {
  /** The folder that is `/` to them; undefined: the machine's own. */
  root?: string;
}

export interface RabbitmqBinaries extends Rooted {
  server: string;
  ctl: string;
  epmd: string;
}

/** Which server answers to the MySQL protocol here; the two differ in how a data folder is made. */
export type MysqlBinaries = Rooted &
  ({ flavour: 'mariadb'; server: string; install: string } | { flavour: 'mysql'; server: string });

/** @returns undefined when RabbitMQ, or the epmd of its Erlang, is not installed. */
export function findRabbitmq(): RabbitmqBinaries | undefined {
  const epmd = findExecutable('epmd');
  const onPath = findExecutable('rabbitmq-server');
  const folders = [...RABBITMQ_SCRIPT_FOLDERS];
  // Elsewhere the script on the PATH is the real one, or a link to it.
  if (onPath !== undefined && !onPath.startsWith('/usr/sbin/')) {
    folders.push(dirname(realpathSync(onPath)));
  }
  for (const folder of folders) {
    const server = join(folder, 'rabbitmq-server');
    const ctl = join(folder, 'rabbitmqctl');
    if (epmd !== undefined && isExecutable(server) && isExecutable(ctl)) {
      return { server, ctl, epmd };
    }
  }
  return undefined;
}

/**
 * MariaDB is looked for first: it installs a `mysqld` of its own as a second name, which would
 * otherwise pass for MySQL.
 * @returns undefined when neither server is installed.
 */
export function findMysql(): MysqlBinaries | undefined {
  const mariadbd = findExecutable('mariadbd');
  const install = findExecutable('mariadb-install-db');
  if (mariadbd !== undefined && install !== undefined) {
    return { flavour: 'mariadb', server: mariadbd, install };
  }
  const mysqld = findExecutable('mysqld');
  return mysqld === undefined ? undefined : { flavour: 'mysql', server: mysqld };
}

export interface PostgresBinaries extends Rooted {
  initdb: string;
  server: string;
}

/** @returns the newest PostgreSQL installed; undefined when there is none. */
export function findPostgres(): PostgresBinaries | undefined {
  const folders = POSTGRES_VERSION_FOLDERS.flatMap(binFoldersIn);
  const onPath = findExecutable('initdb');
  // The name on the PATH is a link in some systems; the server lies beside the real one.
  if (onPath !== undefined) folders.push(dirname(realpathSync(onPath)));
  for (const folder of [...folders, ...POSTGRES_FOLDERS]) {
    const binaries = postgresIn(folder);
    if (isExecutable(binaries.initdb) && isExecutable(binaries.server)) return binaries;
  }
  return undefined;
}

/** @returns the newest PostgreSQL below `root`, by paths as they are inside; undefined: there is none */
export function newestPostgresIn(root: string): PostgresBinaries | undefined {
  const [folder] = POSTGRES_VERSION_FOLDERS.flatMap((parent) => binFoldersIn(join(root, parent)));
  return folder === undefined ? undefined : postgresIn(`/${relative(root, folder)}`);
}

const postgresIn = (folder: string): PostgresBinaries => ({
  initdb: join(folder, 'initdb'),
  server: join(folder, 'postgres'),
});

/** The newest first. */
function binFoldersIn(parent: string): string[] {
  if (!existsSync(parent)) return [];
  return readdirSync(parent)
    .filter((name) => /^\d+(\.\d+)?$/.test(name))
    .sort((one, other) => Number(other) - Number(one))
    .map((name) => join(parent, name, 'bin'));
}

/** The first executable of that name on the PATH, or in the folders where servers are installed. */
export function findExecutable(name: string): string | undefined {
  const path = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...path, ...SERVER_FOLDERS].map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(file: string): boolean {
  if (!existsSync(file)) return false;
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    // Present but not ours to run is the same as not there: the search goes on.
    return false;
  }
}
