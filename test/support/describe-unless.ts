import { describe, test } from '@jest/globals';

/**
 * `describe`, for tests of what this machine may lack. With a problem they are skipped and it is
 * said; where CI is set, as continuous integration does, a test fails with it: there nobody looks
 * for what was skipped, and the faults in the titles would count as tried.
 *
 * @param problem what is missing and what to do; undefined when nothing is
 * @example describeUnless(smallDiskProblem())('a disk that is full', () => { … });
 */
export function describeUnless(
  problem: string | undefined,
): (title: string, tests: () => void) => void {
  if (problem === undefined) return describe;
  process.stderr.write(`SKIPPED: ${problem}\n`);
  if (process.env.CI === undefined) return describe.skip;
  return (title) =>
    describe(title, () => {
      test('can be tried on this machine', () => {
        throw new Error(problem);
      });
    });
}
