import type { OpenTransaction } from '../database.js';

/** What a callback sends through its handle, counted by the adapter that sees it. */
export interface CallbackStatements extends NonNullable<OpenTransaction<unknown>['statements']> {
  sent: number;
  unanswered: number;
  /** Makes the error with which a statement is refused; absent while none is. */
  refusal: (() => Error) | undefined;
}

export function callbackStatements(): CallbackStatements {
  const statements: CallbackStatements = {
    sent: 0,
    unanswered: 0,
    refusal: undefined,
    refuse(error) {
      statements.refusal ??= error;
    },
  };
  return statements;
}
