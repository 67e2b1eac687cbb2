import { EscrowError } from '@escrowmq/protocol';

/** The sentences of the adapters for what they are handed and can't work with. */

/** @param takes what the adapter takes, in the layer's words */
export function foreign(adapter: string, takes: string, given: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    `${adapter} takes ${takes}, and was given ${described(given)}`,
  );
}

export function unknownDialect(adapter: string, found: unknown, cure = ''): EscrowError {
  const dialect = typeof found === 'string' ? `the dialect ${found}` : 'no dialect that it knows';
  return new EscrowError(
    'INVALID_CONFIGURATION',
    `${adapter} found ${dialect}; the barrier works on MySQL, MariaDB, PostgreSQL and SQLite${cure}`,
  );
}

/** @param pass which transaction would be right, in the layer's words */
export function ended(adapter: string, pass: string): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `${adapter} was given a transaction that has ended; pass ${pass}, while that callback runs`,
  );
}

function described(given: unknown): string {
  if (given === null || typeof given !== 'object') {
    return typeof given === 'function' ? 'a function' : String(given);
  }
  const made: unknown = given.constructor;
  const name = typeof made === 'function' ? made.name : '';
  return name === '' || name === 'Object' ? 'another object' : `an object of the class ${name}`;
}
