/*
 * How a command is run with an installed set as its `/`.
 *
 * It sees its own /proc and the folder of its own that its server works in, under the very path that
 * this process knows it by: so nothing that names a path need know of the set. All of it is mounted
 * in a mount namespace of the process alone. It goes with the process however that ends, and whoever
 * deletes the set from outside meets no mount: a folder that held the machine's /dev once emptied it.
 *
 * Each step becomes the next one by exec, so the process id is the server's own in the end, and
 * signals reach it as they reach one of the machine's.
 */

/** Where Debian has programs; this process's own PATH may name folders that are not in the set. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The tmpfs keeps what is made to be mounted on from staying in the set. The folder above the private
 * one is mounted, as tests put files beside it that servers read.
 */
const ENTER_SCRIPT = `
root=$1 dir=$2
shift 2
parent=\${dir%/*}
mount -t proc proc "$root/proc" &&
  mount -t tmpfs tmpfs "$root/tmp" &&
  mkdir -p "$root$parent" &&
  mount --bind "$parent" "$root$parent" &&
  mount --bind /etc/hosts "$root/etc/hosts" &&
  exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$dir" "$@"
`;

/** Mounts made behind it are seen by the command and by nobody else. */
export const PRIVATE_MOUNTS = ['unshare', '--mount', '--propagation', 'private'] as const;

export interface Command {
  command: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
}

/**
 * @param root the folder that is `/` to the command; undefined: the machine's own, nothing changes
 * @param dir absolute; the command begins in it and sees it, and what lies beside it
 */
export function inRoot(root: string | undefined, dir: string, command: Command): Command {
  if (root === undefined) return command;
  const [unshare, ...flags] = PRIVATE_MOUNTS;
  return {
    command: unshare,
    args: [
      ...flags,
      ...['sh', '-c', ENTER_SCRIPT, 'enter', root, dir],
      ...[command.command, ...command.args],
    ],
    env: { ...command.env, PATH },
  };
}
