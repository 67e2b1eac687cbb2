/*
 * Which packages a command needs, and how they come to be there. The broker and the demo need a fifth
 * of what the tests need (see "dependencies" and "devDependencies" in the workspaces' package.json), so
 * a fresh clone installs only that for them, and the first test adds the rest to it.
 */

/**
 * @typedef {{ version?: string, link?: boolean, dev?: boolean, optional?: boolean, devOptional?: boolean }} Entry
 * @typedef {Record<string, Entry>} Packages as in the lock file and in npm's record of what it installed
 */

/**
 * @param {Packages} wanted the lock file's
 * @param {Packages | undefined} present what npm's record says; undefined where there is none
 * @param {{ forTests: boolean }} need
 * @returns {{ how: 'nothing' | 'anew' | 'add', forTests: boolean }} `add` leaves what is there;
 *   `forTests` tells whether those that only tests need come as well
 */
export function packagesToInstall(wanted, present, { forTests }) {
  if (present === undefined) return { how: 'anew', forTests };
  if (isInstalled(wanted, present, { forTests })) return { how: 'nothing', forTests };
  const paths = Object.keys(present).filter(isPackage);
  return {
    how: paths.every((path) => isSame(wanted[path], present[path])) ? 'add' : 'anew',
    // Who has tested here once is not made to wait for it again.
    forTests: forTests || paths.some((path) => wanted[path]?.dev),
  };
}

/** Whether all that is needed is there as the lock file has it. */
export function isInstalled(wanted, present, { forTests }) {
  return Object.entries(wanted).every(([path, entry]) => {
    if (!isPackage(path) || (entry.dev && !forTests)) return true;
    // Optional: made for another platform, or failed to build, which is looked at separately.
    if (entry.optional || entry.devOptional) return true;
    return isSame(entry, present[path]);
  });
}

/** A workspace is linked where it lies: its version changes without anything to install. */
const isPackage = (path) => path.includes('node_modules/');

const isSame = (one, other) =>
  one !== undefined &&
  other !== undefined &&
  one.version === other.version &&
  one.link === other.link;
