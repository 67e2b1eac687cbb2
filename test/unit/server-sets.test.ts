import { describe, expect, test } from '@jest/globals';
import { inRoot } from '../../local-servers/src/in-root.js';
import {
  chosenServerSet,
  debianMirror,
  parseServerSet,
  rootOf,
  serverSetsFolder,
} from '../../local-servers/src/server-sets.js';
import { FlagError, parseFlags } from '../../soak/src/flags.js';

/** A script is no module of any project of the compiler's. */
const { testServersArguments } = (await import(
  String(new URL('../../scripts/test-servers-arguments.mjs', import.meta.url))
)) as {
  testServersArguments(args: readonly string[]): { servers: string; jest: string[] };
};

describe('the set of servers', () => {
  test('is what ESCROW_TEST_SERVERS names, and none where it names none', () => {
    expect(chosenServerSet({ ESCROW_TEST_SERVERS: 'debian-sid' })).toBe('debian-sid');
    expect(chosenServerSet({ ESCROW_TEST_SERVERS: '' })).toBeUndefined();
    expect(chosenServerSet({})).toBeUndefined();
  });

  test('is refused under a wrong name, with the right ones', () => {
    const says = /is "debian-14"; it must be one of debian-12, debian-13, debian-sid$/;
    expect(() => chosenServerSet({ ESCROW_TEST_SERVERS: 'debian-14' })).toThrow(says);
    expect(() => parseServerSet('debian-14', '--with')).toThrow(/^--with is/);
  });

  test('is named to the soak by a flag, by the same names', () => {
    expect(parseFlags(['--servers', 'debian-sid']).servers).toBe('debian-sid');
    expect(parseFlags([]).servers).toBeUndefined();
    const parse = () => parseFlags(['--servers', 'sid']);
    expect(parse).toThrow(/^--servers is "sid"; it must be one of debian-12.*\nflags:/);
    expect(parse).toThrow(FlagError);
  });

  test('lies in the folder that is set, else where the system keeps caches', () => {
    expect(serverSetsFolder({ ESCROW_TEST_SERVERS_CACHE: '/disk', XDG_CACHE_HOME: '/c' })).toBe(
      '/disk',
    );
    expect(serverSetsFolder({ XDG_CACHE_HOME: '/c' })).toBe('/c/escrowmq/servers');
    expect(serverSetsFolder({ XDG_CACHE_HOME: 'relative' })).toMatch(
      /^\/.*\/\.cache\/escrowmq\/servers$/,
    );
    expect(() => serverSetsFolder({ ESCROW_TEST_SERVERS_CACHE: 'disk' })).toThrow(
      'ESCROW_TEST_SERVERS_CACHE is "disk"; it must be an absolute path',
    );
    expect(rootOf('debian-13', '/disk')).toMatch(/^\/disk\/debian-13-\d+$/);
  });
});

describe('the mirror', () => {
  const SOURCES = `Types: deb
# http://snapshot.debian.org/archive/debian
URIs: http://mirror.example/debian-security
Suites: bookworm-security

Types: deb
URIs: http://mirror.example/debian
`;

  test.each([
    ['of a .sources file', [SOURCES], 'http://mirror.example/debian'],
    [
      'of a .list file',
      ['# deb http://old.example/debian a main\ndeb [arch=amd64] https://m.example/debian/ b main'],
      'https://m.example/debian/',
    ],
    [
      "is Debian's own where only others are named",
      ['deb https://deb.nodesource.com/node_20.x nodistro main', 'URIs: http://u.example/ubuntu'],
      'http://deb.debian.org/debian',
    ],
    ["is Debian's own where none is named", [], 'http://deb.debian.org/debian'],
  ])('%s', (_name, sources, mirror) => {
    expect(debianMirror(sources, {})).toBe(mirror);
  });

  test('is the one that is set, before any other', () => {
    const environment = { ESCROW_TEST_DEBIAN_MIRROR: 'http://own.example/apt' };
    expect(debianMirror([SOURCES], environment)).toBe('http://own.example/apt');
  });
});

describe('a command', () => {
  const command = { command: '/usr/sbin/mysqld', args: ['--port=1', 'a b'], env: { PATH: '/x' } };

  test("of the machine's own servers is left as it is", () => {
    expect(inRoot(undefined, '/tmp/own', command)).toBe(command);
  });

  test('of a set is entered by mounts that nobody else sees, and ends as it was given', () => {
    const { command: entered, args, env } = inRoot('/sets/debian-13-1', '/tmp/own', command);
    expect([entered, ...args.slice(0, 3)].join(' ')).toBe('unshare --mount --propagation private');
    expect(args.slice(-5)).toEqual([
      '/sets/debian-13-1',
      '/tmp/own',
      '/usr/sbin/mysqld',
      '--port=1',
      'a b',
    ]);
    expect(env.PATH).toContain('/usr/sbin:');
  });

  test("never mounts the machine's /dev or /proc into a set", () => {
    const { args } = inRoot('/sets/debian-13-1', '/tmp/own', command);
    const mounts = args.join(' ').match(/mount (?:--bind|--rbind|-t) \S+ \S+/g);
    expect(mounts).toEqual([
      'mount -t proc proc',
      'mount -t tmpfs tmpfs',
      'mount --bind "$parent" "$root$parent"',
      'mount --bind /etc/hosts "$root/etc/hosts"',
    ]);
  });
});

describe('npm run test:servers', () => {
  const FITTING = [
    '--testPathPatterns',
    'test/(contract/(?!sqlite)|system/|faults/)|test/long/(local-servers|housekeeping.test)',
  ];
  const PROJECTS = ['--selectProjects', 'servers', 'long'];

  test.each([
    ['what fits, without a path', ['--with', 'debian-13'], [...FITTING, ...PROJECTS]],
    ['by a name with =', ['--with=debian-13'], [...FITTING, ...PROJECTS]],
    [
      'no more than a path names',
      ['test/system/rabbit', '--with', 'debian-13', '--verbose'],
      ['test/system/rabbit', '--verbose', ...PROJECTS],
    ],
    [
      'what jest is told besides',
      ['--with', 'debian-13', '--testNamePattern', 'F43'],
      [...FITTING, '--testNamePattern', 'F43', ...PROJECTS],
    ],
  ])('runs %s', (_name, args, jest) => {
    expect(testServersArguments(args)).toEqual({ servers: 'debian-13', jest });
  });

  test.each([[[]], [['--with']], [['--with=']], [['test/system']]])(
    'says how it is called: %j',
    (args) => {
      expect(() => testServersArguments(args)).toThrow(
        /^usage: .*debian-12\|debian-13\|debian-sid/,
      );
    },
  );
});
