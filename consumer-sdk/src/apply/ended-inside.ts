import { type ClaimOutcome, ENDINGS } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';

const CONSEQUENCES: Record<ClaimOutcome, string> = {
  commit:
    'what it wrote until then is committed, what it wrote after that may be, and the message counts as applied: what is missing must be done by hand',
  rollback: 'what it wrote until then is rolled back; what it wrote after that may be durable',
  unknown: 'whether what it wrote until then is committed is not known',
};

/** The error for work whose transaction ended before it did, by what became of the claim. */
export function endedInside(what: string) {
  return (outcome: ClaimOutcome, cause?: unknown): unknown => {
    // The connection was lost, or the work threw: it comes again, and says itself what went wrong.
    if (cause !== undefined && outcome !== 'commit') return cause;
    return new EscrowError(
      'TRANSACTION_MISUSED',
      `the transaction of ${what} ended inside its work: ${ENDINGS}; ${CONSEQUENCES[outcome]}`,
      // The message must not come again: it would be a duplicate, and nobody would miss the rest.
      { cause, details: outcome === 'commit' ? { outcome, appliedInPart: true } : { outcome } },
    );
  };
}
