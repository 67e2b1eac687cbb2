export { type DatabaseInput, databaseOf, transactionOf } from './adapters/database-of.js';
export type {
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Queryable,
  Mysql2Transaction,
} from './adapters/mysql2-shape.js';
export { type CallbackRules, callInside, ENDINGS } from './call-inside.js';
export { repeatedSession } from './conflicts.js';
export type {
  Dialect,
  Executor,
  LocalDatabase,
  LocalTransaction,
  OpenTransaction,
  SqlValue,
  TransactionGuard,
  TransactionLimits,
} from './database.js';
export { Deadline, type Late, within } from './deadline.js';
export { deleteRowsSql } from './delete-rows.js';
export { type EnsureOptions, parseEnsureOptions } from './ensure-options.js';
export { ensureTable, type TableToEnsure } from './ensure-table.js';
export { executorOn, type Sender } from './executor.js';
export { callForeign, type ForeignEnds, isThenable, tellForeign } from './foreign.js';
export {
  type Chore,
  type Housekeeping,
  type HousekeepingDeps,
  type HousekeepingNews,
  keepHouse,
} from './housekeeping.js';
export { parseEveryMs, parseKeptMs } from './housekeeping-options.js';
export type { Meaning } from './meaning.js';
export { refuseNested } from './nested.js';
export { inPortions, PORTION_ROWS_MAX, rowsOf } from './portions.js';
export type { ColumnKind, Columns, RowOf } from './read-rows.js';
export {
  type ClaimedWork,
  type ClaimOn,
  type ClaimOutcome,
  LostRace,
  runClaimed,
} from './run-claimed.js';
export { isAnswered, meaningOf } from './server-errors.js';
export { inSpan } from './spans.js';
export { createStderrLog, type StderrLine, type StderrLog } from './stderr-log.js';
export { isSqliteInTransaction, savepointGuard } from './transaction-guard.js';
