import { EscrowError, kindOf, optionNames, refuseUnknown } from '@escrowmq/protocol';

/** Of the functions that create a table where it is missing. */
export interface EnsureOptions {
  /**
   * Whether this process deletes rows of the table that nobody will ask for any more, as
   * `startHousekeeping` does with its defaults. What runs already goes on, whatever this says.
   * @default true
   */
  housekeeping?: boolean;
}

const ENSURE_OPTIONS = optionNames<EnsureOptions>({ housekeeping: true });

/**
 * The options as parsed: defaults filled in.
 * @throws {EscrowError} UNKNOWN_FIELD or INVALID_CONFIGURATION, before anything is asked of the
 * database
 */
export function parseEnsureOptions(options: EnsureOptions, where: string): Required<EnsureOptions> {
  refuseUnknown(options, ENSURE_OPTIONS, where);
  const { housekeeping = true } = options;
  if (typeof housekeeping === 'boolean') return { housekeeping };
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `housekeeping is true or false, and was ${kindOf(housekeeping)}; settings go to startHousekeeping(database, { … })`,
  );
}
