/**
 * The version of every package of this release: their package.json say the same, and a test holds
 * it. What runs says it to its peers, so it is a constant of the code and no file that a bundler
 * would lose.
 */
export const VERSION = '0.2.0';

/**
 * The request header in which a caller of the broker names itself and its version, as in
 * `escrow-client: escrowmq-producer/0.2.0`. By sending it the caller says that it judges a word
 * it does not know by what stands beside it, an error's code by `status` and `retryable`. Who does
 * not send it gets no code, state or history event that 0.1 did not have.
 */
export const CLIENT_HEADER = 'escrow-client';

/** What a package of this release sends as `escrow-client`. */
export const clientOf = (packageName: 'escrowmq-producer'): string => `${packageName}/${VERSION}`;

const CLIENT = /^[A-Za-z0-9][A-Za-z0-9._-]*\/\d+\.\d+\.\d+(?:[-+][A-Za-z0-9.+-]+)?$/;

/** Whether a caller has named its version, by what came in `escrow-client`. */
export const namesVersion = (header: string | string[] | undefined): boolean =>
  typeof header === 'string' && header.length <= 100 && CLIENT.test(header);
