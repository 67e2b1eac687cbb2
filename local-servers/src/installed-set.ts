import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findExecutable } from './binaries.js';
import { PRIVATE_MOUNTS } from './in-root.js';
import { inheritedEnvironment } from './inherited-environment.js';
import { BuildFailure, installOnce } from './install-once.js';
import { ensurePackages, tellOnStderr } from './packages.js';
import { debianMirror, type InstallableSet, RECIPES, rootOf } from './server-sets.js';

const APT_SOURCES = '/etc/apt';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Ends every error here. */
const OTHERWISE = "take debian-12, which is the machine's own packages";

/** What the script ends with where the mirror is to blame, and nothing else does. */
const NO_MIRROR = 76;

/**
 * Arguments: mirror, suite, packages, `--`, the folder to fill.
 *
 * Every suite begins as trixie, whose debootstrap works when that of sid does not. Nothing of the
 * machine is mounted where others could see it, /dev holds a few nodes of its own: whoever deletes
 * the folder deletes the folder and nothing else. policy-rc.d keeps packages from starting what they
 * install, createcluster.d PostgreSQL from making data. A crash of the machine is no reason to sync
 * each file: what is not whole is begun anew. sid's release file may be past its own time on a mirror
 * that lags.
 */
const FILL_SCRIPT = `
set -e
mirror=$1 suite=$2
shift 2
packages=
while [ "$1" != -- ]; do packages="$packages $1"; shift; done
root=$2
wget -q --spider --tries=2 --timeout=20 "$mirror/dists/$suite/Release" || exit ${NO_MIRROR}
private='unshare --mount --propagation private'
$private debootstrap --variant=minbase trixie "$root" "$mirror"
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
  set -- $node
  [ -c "$root/dev/$1" ] || { rm -f "$root/dev/$1"; mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
done
[ -L "$root/dev/fd" ] || ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/dev/shm" "$root/proc" "$root/etc/postgresql-common/createcluster.d"
chmod 1777 "$root/dev/shm"
cp /etc/hosts "$root/etc/hosts"
printf '#!/bin/sh\\nexit 101\\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.d/escrowmq.conf"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/escrowmq"
printf 'path-exclude=/usr/share/%s/*\\n' doc man locale >>"$root/etc/dpkg/dpkg.cfg.d/escrowmq"
rm -f "$root"/etc/apt/sources.list.d/*
echo "deb $mirror $suite main" >"$root/etc/apt/sources.list"
$private sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" sh -ec "$1"' "$root" "
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none update
  apt-get -q -y --no-install-recommends -o Dpkg::Use-Pty=0 install $packages
  apt-get clean
  rm -rf /var/lib/apt/lists/* /var/lib/mysql/*"
`;

/**
 * Makes sure that a set is installed, which takes root, debootstrap and a mirror of Debian, and two
 * to four minutes, once for all clones and processes.
 *
 * @param say where the one line goes that tells why this takes a while @default standard error
 * @returns the folder that is `/` to its servers
 * @throws Error whose first line says what is missing and what would help
 */
export async function ensureServerSet(set: InstallableSet, say = tellOnStderr): Promise<string> {
  const root = rootOf(set);
  await makeSureOfRights(set);
  if (existsSync(root)) return root;
  await ensurePackages(
    [
      { name: 'debootstrap', isInstalled: () => findExecutable('debootstrap') !== undefined },
      { name: 'debian-archive-keyring', isInstalled: () => existsSync(KEYRING) },
    ],
    { say, otherwise: OTHERWISE },
  );
  const mirror = debianMirror(aptSources());
  say(`installing ${set} into ${root} (two to four minutes, once)`);
  const { suite, packages } = RECIPES[set];
  try {
    await installOnce(root, {
      command: ['sh', '-c', FILL_SCRIPT, 'fill', mirror, suite, ...packages, '--'],
      // apt speaks the language of whoever reads its last lines in an error.
      env: { ...inheritedEnvironment(/^(DEB|APT|DPKG|LANG|LC_)/), LC_ALL: 'C.UTF-8' },
    });
  } catch (error) {
    if (!(error instanceof BuildFailure)) throw error;
    throw new Error(
      error.exitCode === NO_MIRROR
        ? `${set} can't be had: ${mirror} does not answer; set ESCROW_TEST_DEBIAN_MIRROR to a mirror of Debian that does, or ${OTHERWISE}`
        : `${set} could not be installed (exit code ${error.exitCode}):\n${error.printed}`,
      { cause: error },
    );
  }
  return root;
}

/** To run in a folder takes root's rights on Linux, and the right to mount for oneself. */
async function makeSureOfRights(set: InstallableSet): Promise<void> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new Error(
      `${set} can't be had: its servers run by chroot, which takes root on Linux; run as root, or ${OTHERWISE}`,
    );
  }
  const [unshare, ...flags] = PRIVATE_MOUNTS;
  try {
    await promisify(execFile)(unshare, [...flags, 'true']);
  } catch (cause) {
    throw new Error(
      `${set} can't be had: this process may not make mounts of its own; give its container the capability SYS_ADMIN, or ${OTHERWISE}`,
      { cause },
    );
  }
}

function aptSources(): string[] {
  const folder = join(APT_SOURCES, 'sources.list.d');
  const files = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
  return [join(APT_SOURCES, 'sources.list'), ...files]
    .filter((file) => /\.(list|sources)$/.test(file) && existsSync(file))
    .map((file) => readFileSync(file, 'utf8'));
}
