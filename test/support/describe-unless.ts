import { describe, test } from '@jest/globals';

/**
 * `describe`, for tests of what this machine may lack. With a problem they are skipped and it is
 * said. With ESCROW_TEST_NO_SKIPS=1 a test fails with it instead: that is for a machine that is meant
 * to try everything, where nobody looks for what was skipped.
 *
 * @param problem what is missing and what to do; undefined when nothing is
 * @example describeUnless(smallDiskProblem())('a disk that is full', () => { … });
 */
export function describeUnless(
  problem: string | undefined,
): (title: string, tests: () => void) => void {
  if (problem === undefined) return describe;
  process.stderr.write(`SKIPPED: ${problem}\n`);
  if (process.env.ESCROW_TEST_NO_SKIPS !== '1') return describe.skip;
  return (title) =>
    describe(title, () => {
      test('can be tried on this machine', () => {
        throw new Error(problem);
      });
    });
}
