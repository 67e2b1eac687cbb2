import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/*
 * The faults that EscrowMQ has to stand, each under an id that does not change. A test of one ends
 * its title with the id in brackets, as (F15) or (F15, F16); what no test tries has its reason
 * here. test/unit/fault-coverage.test.ts holds the two together, and prints the table when it is run
 * with ESCROW_TEST_FAULT_TABLE=1.
 *
 * A title counts whether or not its test can run on this machine. So nothing here is skipped but by
 * `describeUnless`, which says what is missing, and fails with ESCROW_TEST_NO_SKIPS=1.
 */

export const FAULTS = {
  F01: 'a producer crashes before its prepare',
  F02: 'a prepare is lost, or the broker dies before it is stored',
  F03: 'the broker dies after a prepare is stored, before the answer',
  F04: 'a prepare arrives twice, or very late',
  F05: 'two prepares under one id, with other contents',
  F06: 'the store is full or read-only at a prepare',
  F07: 'a body over the limit',
  F08: 'headers or a body that come very slowly',
  F09: 'a prepare without a local transaction',
  F10: 'a producer crashes in its open local transaction',
  F11: 'a check comes while the local transaction is open',
  F12: 'a check rolls back before the local transaction begins',
  F13: 'a pause between prepare and local transaction, longer than barrier rows are kept',
  F14: 'two checks wait for a local transaction that rolls back',
  F15: 'the answer to a local COMMIT is lost',
  F16: 'a local COMMIT is lost',
  F17: "the producer's database restarts during a COMMIT",
  F18: "the producer's database fails over to a copy that lacks the local transaction",
  F19: 'a check reaches a replica',
  F20: 'the barrier row and the business rows are not in one transaction',
  F21: 'an id that is too long, or is another one only to the eye',
  F22: 'a producer crashes after its COMMIT, before its commit at the broker',
  F23: 'a commit is lost, or no broker answers it',
  F24: 'the broker dies after a verdict is stored, before the answer',
  F25: 'a verdict arrives twice',
  F26: 'a verdict contradicts the decision',
  F27: 'a commit after a check has rolled back',
  F28: 'a commit for a transaction that the broker has lost',
  F29: 'a verdict of another principal',
  F30: 'a check endpoint hangs',
  F31: 'a check endpoint is down, has no name or no TLS',
  F32: 'a check is answered with garbage, or for another id',
  F33: 'a check is answered without an end, or compressed',
  F34: 'a check is answered with a redirect',
  F35: 'a check endpoint lies',
  F36: 'a check is answered differently the second time',
  F37: 'nobody answers checks for days',
  F38: 'another service answers checks',
  F39: 'very many checks fall due for a service that just recovers',
  F40: 'two instances act on one transaction',
  F41: 'a lease ends while its owner is paused',
  F42: 'the clocks of instances are apart, or jump',
  F43: 'the clock of the store jumps',
  F44: 'a statement of the broker meets a deadlock',
  F45: 'a connection to the store dies in a statement',
  F46: 'the store restarts',
  F47: 'a start with 100,000 checks and 100,000 forwards due',
  F48: 'two versions of the broker on one store',
  F49: 'a transaction that makes its handling throw',
  F50: 'the broker dies after a publish, before the confirm',
  F51: 'the broker dies after a confirm, before it is recorded',
  F52: 'the connection to RabbitMQ is lost with publishes unconfirmed',
  F53: 'a message that no queue is bound for',
  F54: 'an exchange is missing',
  F55: 'RabbitMQ rejects a publish',
  F56: 'RabbitMQ blocks publishers',
  F57: 'RabbitMQ is killed',
  F58: 'RabbitMQ has lost its majority',
  F59: 'confirms come out of order',
  F60: 'a retry of a message with others of its key behind it',
  F61: 'a connection whose other end is gone without a word',
  F62: 'a queue whose settings lose messages',
  F63: 'a consumer dies before its COMMIT',
  F64: 'a consumer dies after its COMMIT, before the acknowledgement',
  F65: 'an acknowledgement is lost',
  F66: "the answer to a consumer's COMMIT is lost",
  F67: 'two consumers have one message at once',
  F68: 'a message that always fails',
  F69: 'the dead-letter queue is gone',
  F70: 'a handler hangs',
  F71: 'RabbitMQ counts a message to its delivery limit',
  F72: 'a consumer forgets a message that comes again',
  F73: 'a body is altered on the way',
  F74: 'a message of somebody else in the queue',
  F75: 'a purge meets a repeat',
  F76: 'a purge meets what is open',
  F77: 'the disk of the store fills up',
  F78: 'the broker has no memory, connections or file handles left',
  F79: 'SIGTERM in the middle of everything',
  F80: 'the store is set back to an older copy',
} as const;

export type FaultId = keyof typeof FAULTS;

/** Why no test tries it. A reason for a fault that a test names is a mistake. */
const NOT_TRIED: Partial<Record<FaultId, string>> = {
  F18: 'outside of the promise, which holds as long as a database keeps what it acknowledged: a copy that lacks a COMMIT lacks the barrier row with it, and no answer of a check can tell that from a rollback',
  F58: 'needs a RabbitMQ of three nodes; to the broker it is a connection that confirms nothing (F61) or blocks (F56)',
};

const TESTS = fileURLToPath(new URL('..', import.meta.url));
const SOURCE = /\.(ts|mjs)$/;
/** The end of a title, in any of the three quotes; a title may stand in a table of cases. */
const IDS_OF_A_TITLE = /\((F\d+(?:, F\d+)*)\)['"`]/g;

/** Where the titles of tests name each id, known or not; paths are relative to test/. */
export function titlesById(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { path, text } of sources()) {
    for (const id of idsOf(text)) found.set(id, [...(found.get(id) ?? []), path]);
  }
  return found;
}

/** The files, relative to test/, that name faults and yet skip a test by themselves, and how. */
export const skipsInTests = (): string[] =>
  sources().flatMap(({ path, text }) => skipsOf(text).map((skip) => `${path}: ${skip}`));

/** All that lies in a folder of test/. */
function sources(): { path: string; text: string }[] {
  return readdirSync(TESTS, { recursive: true, withFileTypes: true })
    .map((entry) => ({ entry, path: join(entry.parentPath, entry.name) }))
    .filter(({ entry }) => entry.isFile() && SOURCE.test(entry.name))
    .map(({ path }) => ({ path: relative(TESTS, path), text: readFileSync(path, 'utf8') }))
    .filter(({ path }) => dirname(path) !== '.');
}

/** The ids that titles in this source name, each once. */
export function idsOf(source: string): string[] {
  const lists = [...source.matchAll(IDS_OF_A_TITLE)].map(([, list = '']) => list.split(', '));
  return [...new Set(lists.flat())];
}

/** jest's `skip` and its like, which leave a title standing that nothing tries. */
const SKIPS =
  /\b(?:describe|test|it)(?:\.\w+)*\.(?:skip|only|todo|failing)\b|\bx(?:describe|test|it)\b/g;

/** How this source skips a test by itself, if titles in it name faults. */
export const skipsOf = (source: string): string[] =>
  idsOf(source).length === 0 ? [] : (source.match(SKIPS) ?? []);

/** What is wrong with a table of faults, reasons and titles, each in one sentence. */
export function coverageFaults(
  titles: Map<string, string[]>,
  faults: Readonly<Record<string, string>> = FAULTS,
  reasons: Readonly<Record<string, string>> = NOT_TRIED,
): string[] {
  const known = Object.keys(faults);
  return [
    ...known
      .filter((id) => !titles.has(id) && reasons[id] === undefined)
      .map((id) => `${id} has neither a test nor a reason: ${faults[id]}`),
    ...known
      .filter((id) => titles.has(id) && reasons[id] !== undefined)
      .map((id) => `${id} has a reason not to be tried, and is tried in ${titles.get(id)}`),
    ...[...titles.keys(), ...Object.keys(reasons)]
      .filter((id) => faults[id] === undefined)
      .map((id) => `${id} is no fault of the table${titles.has(id) ? `: ${titles.get(id)}` : ''}`),
  ];
}

/** One line for each fault, and one for their sum. */
export function coverageTable(titles: Map<string, string[]>): string {
  const reasons: Readonly<Record<string, string>> = NOT_TRIED;
  const lines = Object.entries(FAULTS).map(([id, fault]) => {
    const where = titles.get(id)?.join(', ') ?? `not tried: ${reasons[id] ?? 'no reason'}`;
    return `${id}  ${fault}\n     ${where}`;
  });
  const tried = Object.keys(FAULTS).filter((id) => titles.has(id)).length;
  const excused = Object.keys(NOT_TRIED).length;
  const rest = lines.length - tried - excused;
  return [...lines, `${tried} with a test, ${excused} with a reason, ${rest} with neither`].join(
    '\n',
  );
}
