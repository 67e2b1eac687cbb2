import { spawn } from 'node:child_process';
import { findExecutable, findMysql, findPostgres, findRabbitmq } from './binaries.js';

/** A server this package can start by itself. */
export type Server = 'rabbitmq' | 'mysql' | 'postgres';

const DEBIAN_PACKAGE: Record<Server, string> = {
  rabbitmq: 'rabbitmq-server',
  mysql: 'mariadb-server',
  postgres: 'postgresql',
};

/** RabbitMQ and MariaDB take 30 s here; a slow mirror or another apt ahead of us may take minutes. */
const LOCK_WAIT_S = 600;

/** Only root writes to /run, so nobody else can put a link in its place. */
const LOCK_FILE = '/run/escrowmq-packages.lock';

/** What apt said last usually names the cause. */
const REPORTED_LINES_MAX = 15;

/**
 * Arguments: the packages. Runs under a lock, so that one process cannot take the temporary
 * policy-rc.d away while another still installs behind it.
 *
 * policy-rc.d is how Debian lets an administrator forbid that an installed service starts; without
 * one, a fresh RabbitMQ and MariaDB would occupy the default ports for good. PostgreSQL also makes a
 * first cluster, which would start with the machine; createcluster.d says no to that. Both files
 * are removed in every case, as the trap also runs when a signal ends the shell. A policy-rc.d that
 * exists is the administrator's.
 */
const INSTALL_SCRIPT = `
installed=$(dpkg-query -W -f '\${db:Status-Status}\\n' "$@" 2>/dev/null | grep -cx installed)
[ "$installed" = "$#" ] && exit 0
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/escrowmq.conf
remove=$cluster
trap 'rm -f $remove; rmdir -p --ignore-fail-on-non-empty "\${cluster%/*}"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "\${cluster%/*}" && echo 'create_main_cluster = false' >"$cluster"
if [ ! -e "$policy" ]; then
  remove="$policy $cluster"
  printf '#!/bin/sh\\nexit 101\\n' >"$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
for attempt in 1 2 3; do
  apt-get update -q &&
    apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" && exit 0
  dpkg --configure -a
  sleep 3
done
exit 1
`;

/**
 * Makes sure that the named servers can be started on this machine. On Debian and Ubuntu, root has
 * what is missing installed by apt-get, without leaving a service running; several processes may
 * ask at once.
 *
 * @param servers what the caller is about to start
 * @param say where the one line goes that tells why this takes a while @default standard error
 * @throws Error with one line that says what to install, when this process may not do it
 * @example await ensureServerPackages(['rabbitmq', 'mysql']);
 */
export async function ensureServerPackages(
  servers: readonly Server[],
  say = tellOnStderr,
): Promise<void> {
  const variables = servers.map((server) => `ESCROW_TEST_${server.toUpperCase()}`).join(' and ');
  const otherwise = `start a Docker engine, or set ${variables} to the URL of a running server`;
  const find = { rabbitmq: findRabbitmq, mysql: findMysql, postgres: findPostgres };
  const packages = servers.map((server) => ({
    name: DEBIAN_PACKAGE[server],
    isInstalled: () => find[server]() !== undefined,
  }));
  await ensurePackages(packages, { say, otherwise });
}

/** What is used beside npm packages, by the name that Debian and Ubuntu give it. */
export interface DebianPackage {
  name: string;
  /** Whether what is used of it is there, wherever it came from. */
  isInstalled(): boolean;
}

/**
 * Makes sure that packages are there. On Debian and Ubuntu, root has what is missing installed by
 * apt-get, without leaving a service running; several processes may ask at once.
 *
 * @param options.say where the one line goes that tells why this takes a while @default standard error
 * @param options.otherwise what somebody may do instead of installing it, for the error
 * @throws Error that says in its first line what to install, when this process may not or can not
 * @example await ensurePackages([{ name: 'libfaketime', isInstalled: () => existsSync(LIBRARY) }]);
 */
export async function ensurePackages(
  packages: readonly DebianPackage[],
  { say = tellOnStderr, otherwise }: { say?: (line: string) => void; otherwise?: string } = {},
): Promise<void> {
  const missing = packages.filter((each) => !each.isInstalled());
  if (missing.length === 0) return;

  const names = missing.map(({ name }) => name);
  const named = names.join(' and ');
  const root = process.getuid?.() === 0;
  if (!root || findExecutable('apt-get') === undefined || findExecutable('flock') === undefined) {
    const how =
      findExecutable('apt-get') === undefined
        ? "with this system's package manager"
        : `as root (apt-get install --no-install-recommends ${names.join(' ')})`;
    const or = otherwise === undefined ? '' : `, ${otherwise}`;
    throw new Error(`${named} is not installed: install it ${how}${or}`);
  }
  say(`installing ${named} with apt-get (no service is started; about a minute)`);
  await install(names);

  const still = missing.filter((each) => !each.isInstalled()).map(({ name }) => name);
  if (still.length > 0) {
    throw new Error(`apt-get installed ${still.join(' and ')}, and it is not where it should be`);
  }
}

export const tellOnStderr = (line: string): void => void process.stderr.write(`${line}\n`);

async function install(packages: string[]): Promise<void> {
  const lines: string[] = [];
  const child = spawn(
    'flock',
    ['-w', String(LOCK_WAIT_S), LOCK_FILE, 'sh', '-c', INSTALL_SCRIPT, 'install', ...packages],
    { stdio: ['ignore', 'pipe', 'pipe'], env: process.env },
  );
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      lines.push(...text.split('\n').filter((line) => line.trim() !== ''));
      lines.splice(0, Math.max(0, lines.length - REPORTED_LINES_MAX));
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  if (code !== 0) {
    throw new Error(
      `apt-get could not install ${packages.join(' ')} (exit code ${code}):\n${lines.join('\n')}`,
    );
  }
}
