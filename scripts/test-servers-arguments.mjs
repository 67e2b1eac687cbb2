/** What is tested against servers, and against those that a test starts for itself: no SQLite. */
const TESTS =
  'test/(contract/(?!sqlite)|system/|faults/)|test/long/(local-servers|housekeeping.test)';

/** A path or a pattern of one: with it, only what it names is run. */
const NAMES_TESTS = /^--testPathPattern|^(\.\/)?test\//;

/**
 * @param {string[]} args what follows `npm run test:servers --`
 * @returns {{ servers: string, jest: string[] }} `servers` is what was given for the name of a set
 * @throws Error that says how the command is called
 */
export function testServersArguments(args) {
  const at = args.findIndex((arg) => arg === '--with' || arg.startsWith('--with='));
  const isApart = args[at] === '--with';
  const servers = isApart ? args[at + 1] : args[at]?.slice('--with='.length);
  if (!servers) {
    throw new Error(
      'usage: npm run test:servers -- --with <debian-12|debian-13|debian-sid> [arguments for jest]',
    );
  }
  const rest = args.toSpliced(at, isApart ? 2 : 1);
  const jest = [
    ...(rest.some((arg) => NAMES_TESTS.test(arg)) ? [] : ['--testPathPatterns', TESTS]),
    ...rest,
    // Last, as it takes every argument after it for a project.
    ...(rest.includes('--selectProjects') ? [] : ['--selectProjects', 'servers', 'long']),
  ];
  return { servers, jest };
}
