import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/*
 * A set is one RabbitMQ, one MySQL or MariaDB and one PostgreSQL that are tested together. This file
 * says which sets there are, which one is wanted and where it lies; `installed-set.ts` gets it.
 */

/** `debian-12` stands for the packages of the machine itself, whatever they are. */
export const SERVER_SETS = ['debian-12', 'debian-13', 'debian-sid'] as const;
export type ServerSet = (typeof SERVER_SETS)[number];

/** A set that is installed into a folder of its own, from the packages of a later Debian. */
export type InstallableSet = Exclude<ServerSet, 'debian-12'>;

export interface Recipe {
  /** Whose packages these are. debootstrap knows every release by its code name. */
  suite: string;
  packages: readonly string[];
  /** Which of the two servers of MySQL's protocol is in it. */
  mysql: 'mariadb' | 'mysql';
}

/** What tests preload into a server to give it another time; it must lie where the server can see it. */
const FAKE_TIME = 'libfaketime';

/** Names without a version wherever the suite moves. */
export const RECIPES: Record<InstallableSet, Recipe> = {
  'debian-13': {
    suite: 'trixie',
    packages: ['rabbitmq-server', 'mariadb-server', 'postgresql', FAKE_TIME],
    mysql: 'mariadb',
  },
  'debian-sid': {
    suite: 'sid',
    packages: ['rabbitmq-server', 'mysql-server-core', 'postgresql', FAKE_TIME],
    mysql: 'mysql',
  },
};

/** Part of the folder's name: a set that was installed by an older recipe is not taken for this one. */
const RECIPE_VERSION = 1;

const DEFAULT_MIRROR = 'http://deb.debian.org/debian';

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The set that ESCROW_TEST_SERVERS names.
 * @returns undefined when it names none: then containers are as good as the machine's packages
 * @throws Error that says which names there are
 */
export function chosenServerSet(environment: Environment = process.env): ServerSet | undefined {
  const name = environment.ESCROW_TEST_SERVERS ?? '';
  return name === '' ? undefined : parseServerSet(name, 'ESCROW_TEST_SERVERS');
}

/**
 * @param what where the name was read, for the error
 * @throws Error that says which names there are
 */
export function parseServerSet(name: string, what: string): ServerSet {
  const set = SERVER_SETS.find((one) => one === name);
  if (set === undefined) {
    throw new Error(`${what} is "${name}"; it must be one of ${SERVER_SETS.join(', ')}`);
  }
  return set;
}

/**
 * Outside the repository, so that every clone uses it and none carries it: ESCROW_TEST_SERVERS_CACHE,
 * else where the system keeps caches. Whoever deletes it gets sets as new as the mirror has them.
 * @throws Error when the setting is no absolute path
 */
export function serverSetsFolder(environment: Environment = process.env): string {
  const own = environment.ESCROW_TEST_SERVERS_CACHE ?? '';
  if (own !== '') {
    if (isAbsolute(own)) return own;
    throw new Error(`ESCROW_TEST_SERVERS_CACHE is "${own}"; it must be an absolute path`);
  }
  const caches = environment.XDG_CACHE_HOME ?? '';
  // By the specification of these folders a relative path counts as none.
  return join(isAbsolute(caches) ? caches : join(homedir(), '.cache'), 'escrowmq', 'servers');
}

/** The folder that is `/` to the servers of that set. */
export function rootOf(set: InstallableSet, folder: string = serverSetsFolder()): string {
  return join(folder, `${set}-${RECIPE_VERSION}`);
}

/**
 * Whence packages come: ESCROW_TEST_DEBIAN_MIRROR, else the mirror that this machine uses for itself,
 * else Debian's own.
 * @param sources what stands in apt's lists of sources, in either of its formats
 */
export function debianMirror(
  sources: readonly string[],
  environment: Environment = process.env,
): string {
  const own = environment.ESCROW_TEST_DEBIAN_MIRROR ?? '';
  if (own !== '') return own;
  const urls = sources
    .flatMap((text) => text.split('\n'))
    // `URIs: <url> …` in a .sources file, `deb [options] <url> …` in a .list; comments begin with #.
    .filter((line) => /^\s*(URIs:|deb\s)/i.test(line))
    .flatMap((line) => line.match(/https?:\/\/\S+/g) ?? []);
  // Others (a vendor's repository, Debian's own security archive, Ubuntu) do not have these suites.
  return urls.find((url) => /\/debian\/?$/.test(url)) ?? DEFAULT_MIRROR;
}
