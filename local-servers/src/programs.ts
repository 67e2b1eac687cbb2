import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import {
  findMysql,
  findPostgres,
  findRabbitmq,
  type MysqlBinaries,
  newestPostgresIn,
  type PostgresBinaries,
  type RabbitmqBinaries,
} from './binaries.js';
import { ensureServerSet } from './installed-set.js';
import { ensureServerPackages } from './packages.js';
import { chosenServerSet, RECIPES, type ServerSet } from './server-sets.js';

/*
 * The programs of each server, of the set that is wanted: installed first where they are missing and
 * that is possible. Each takes the set that ESCROW_TEST_SERVERS names where it is given none, and
 * throws an Error whose first line says what is missing and what would help.
 */

/** Where Debian's packages put them in every release. */
const IN_A_SET = {
  rabbitmq: {
    server: '/usr/lib/rabbitmq/bin/rabbitmq-server',
    ctl: '/usr/lib/rabbitmq/bin/rabbitmqctl',
    epmd: '/usr/bin/epmd',
  },
  mariadb: {
    flavour: 'mariadb',
    server: '/usr/sbin/mariadbd',
    install: '/usr/bin/mariadb-install-db',
  },
  mysql: { flavour: 'mysql', server: '/usr/sbin/mysqld' },
} as const;

const wanted = (set: ServerSet | undefined): ServerSet => set ?? chosenServerSet() ?? 'debian-12';

export async function rabbitmqOf(servers?: ServerSet): Promise<RabbitmqBinaries> {
  const set = wanted(servers);
  if (set !== 'debian-12') return { ...IN_A_SET.rabbitmq, root: await ensureServerSet(set) };
  await ensureServerPackages(['rabbitmq']);
  return found(findRabbitmq(), 'RabbitMQ');
}

export async function mysqlOf(servers?: ServerSet): Promise<MysqlBinaries> {
  const set = wanted(servers);
  if (set !== 'debian-12') {
    return { ...IN_A_SET[RECIPES[set].mysql], root: await ensureServerSet(set) };
  }
  await ensureServerPackages(['mysql']);
  return found(findMysql(), 'MySQL');
}

export async function postgresOf(servers?: ServerSet): Promise<PostgresBinaries> {
  const set = wanted(servers);
  if (set !== 'debian-12') {
    const root = await ensureServerSet(set);
    return { ...found(newestPostgresIn(root), 'PostgreSQL'), root };
  }
  await ensureServerPackages(['postgres']);
  return found(findPostgres(), 'PostgreSQL');
}

/**
 * Installs what is missing of a set.
 * @returns why it can't be had here and what would help, in its first line; undefined when it is there
 */
export async function serverSetProblem(set: ServerSet): Promise<string | undefined> {
  try {
    if (set === 'debian-12') await ensureServerPackages(['rabbitmq', 'mysql', 'postgres']);
    else await ensureServerSet(set);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** What the servers of a set say that they are, one line each; of a set that is there. */
export async function serverVersions(set: ServerSet): Promise<string[]> {
  const [rabbitmq, mysql, postgres] = [
    await rabbitmqOf(set),
    await mysqlOf(set),
    await postgresOf(set),
  ];
  return [
    `RabbitMQ ${await printed(rabbitmq.root, rabbitmq.ctl, 'version')}`,
    await printed(mysql.root, mysql.server, '--version'),
    await printed(postgres.root, postgres.server, '--version'),
  ];
}

async function printed(root: string | undefined, command: string, flag: string): Promise<string> {
  const [file = '', ...args] = [...(root === undefined ? [] : ['chroot', root]), command, flag];
  const { stdout } = await promisify(execFile)(file, args);
  // MySQL's and MariaDB's lines begin with a path, and MariaDB's ends with an advertisement.
  return stdout
    .trim()
    .replace(/^\S*\//, '')
    .replace(/ \(-- .*$/, '');
}

function found<T>(programs: T | undefined, name: string): T {
  if (programs === undefined) throw new Error(`${name} is installed, but its server is not found`);
  return programs;
}
