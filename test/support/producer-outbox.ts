import type { Dialect } from '../../database/src/database.js';
import type { DatabaseKind, SuiteDatabase } from './producer-databases.js';

/** A row of the outbox, as a test looks at it. */
export interface OutboxRow {
  id: string;
  state: string;
  operation: string;
  cause: string | null;
}

const ID: Record<Dialect, string> = {
  mysql: 'lower(hex(transaction_id))',
  postgres: "replace(cast(transaction_id as text), '-', '')",
  sqlite: 'transaction_id',
};

const UUID = /^(.{8})(.{4})(.{4})(.{4})(.{12})$/;

/** A database of the caller's own, and a view of its outbox. */
export async function startOutboxDatabase(kind: DatabaseKind): Promise<
  SuiteDatabase & {
    rows(): Promise<OutboxRow[]>;
    /** Moves the clock: what is to be sent is due, and no lease holds. */
    makeDue(): Promise<void>;
    /** Writes into one row by hand: `state = 'sent'`. */
    set(id: string, assignment: string): Promise<void>;
  }
> {
  const suite = await kind.start();
  return {
    ...suite,
    async rows() {
      const rows = await suite.observe(
        `select ${ID[kind.dialect]} as id, state, operation, cause from escrow_outbox order by transaction_id`,
      );
      return rows.map(({ id, state, operation, cause }) => ({
        id: String(id).replace(UUID, '$1-$2-$3-$4-$5'),
        state: String(state),
        operation: String(operation),
        cause: cause === null ? null : String(cause),
      }));
    },
    async makeDue() {
      await suite.observe("update escrow_outbox set due_at = 0 where state = 'unsent'");
    },
    async set(id, assignment) {
      const digits = id.replaceAll('-', '');
      const literal = { mysql: `unhex('${digits}')`, postgres: `'${id}'`, sqlite: `'${digits}'` };
      await suite.observe(
        `update escrow_outbox set ${assignment} where transaction_id = ${literal[kind.dialect]}`,
      );
    },
  };
}
