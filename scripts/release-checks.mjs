/*
 * What must hold before a version is packed for a registry, as functions of what was read. Each gives
 * sentences: what is wrong, and what would be right.
 */

const DEPENDENCIES = [
  'dependencies',
  'devDependencies',
  'peerDependencies',
  'optionalDependencies',
];

/** Enough to see which change it is. */
const NAMED_MAX = 5;

/** @param status what `git status --porcelain` printed */
export function treeFaults(status) {
  const changed = status.split('\n').filter((line) => line !== '');
  if (changed.length === 0) return [];
  const named = changed.slice(0, NAMED_MAX).map((line) => line.slice(3));
  const more = changed.length > NAMED_MAX ? ` and ${changed.length - NAMED_MAX} more` : '';
  return [`the working tree is not clean: commit, stash or remove ${named.join(', ')}${more}`];
}

/**
 * @param manifests by folder: the package.json of every workspace
 * @param others by place: every other version that is written down
 */
export function versionFaults(version, manifests, others) {
  const ours = new Set(Object.values(manifests).map(({ name }) => name));
  const written = { ...others };
  for (const [folder, manifest] of Object.entries(manifests)) {
    const file = `${folder}/package.json`;
    written[file] = manifest.version;
    for (const kind of DEPENDENCIES) {
      for (const [name, wanted] of Object.entries(manifest[kind] ?? {})) {
        if (ours.has(name)) written[`${file}, ${kind}.${name}`] = wanted;
      }
    }
  }
  return Object.entries(written)
    .filter(([, found]) => found !== version)
    .map(
      ([place, found]) =>
        `${place} says ${found ?? 'no version'}, and package.json says ${version}`,
    );
}

/** @param packages the folders that are packed, in the order in which they are published */
export function packageFaults(packages, manifests) {
  const faults = [];
  const before = new Set();
  for (const folder of packages) {
    const { name, private: hidden, dependencies = {} } = manifests[folder];
    if (hidden) faults.push(`${folder} is private, and would be packed`);
    for (const needed of Object.keys(dependencies)) {
      if (needed.startsWith('@escrowmq/') && !before.has(needed)) {
        faults.push(`${folder} needs ${needed}, which is not published before it`);
      }
    }
    before.add(name);
  }
  for (const [folder, manifest] of Object.entries(manifests)) {
    if (!manifest.private && !packages.includes(folder)) {
      faults.push(`${folder} is not private, and would not be packed`);
    }
  }
  return faults;
}

/** @param changelog the text of CHANGELOG.md */
export function changelogFaults(version, changelog) {
  const [, ...sections] = changelog.split(/^## /m);
  const section = sections.find((text) => text.split(/[\s]/, 1)[0] === version);
  if (section === undefined) return [`CHANGELOG.md has no section "## ${version}"`];
  const said = section.split('\n').slice(1).join('').trim();
  return said === '' ? [`CHANGELOG.md says nothing below "## ${version}"`] : [];
}

/** @param tagged whether the repository has the tag of this version */
export function tagFaults(version, tagged) {
  return tagged ? [`v${version} is tagged already: raise the version first`] : [];
}
