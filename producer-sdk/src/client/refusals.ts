import { EscrowError, fromProblem, type Problem, VERSION } from '@escrowmq/protocol';

/**
 * The error that a broker's problem stands for. A field that the broker does not know was known
 * here, where every request is checked by the same rules before it is sent: the broker is older.
 */
export function refusalFrom(problem: Problem): EscrowError {
  const error = fromProblem(problem);
  if (error.code !== 'UNKNOWN_FIELD') return error;
  const { message, fields, details } = error;
  return new EscrowError(
    'UNKNOWN_FIELD',
    `the broker is older than this SDK, ${VERSION}, and does not know what it was asked; upgrade the brokers first, then the SDKs. It said: ${message}`,
    { fields, details },
  );
}
