/** What a server said to a statement, in as many kinds as the SDKs tell apart. */
export type Meaning =
  | 'duplicate key'
  | 'no such table'
  /** Somebody else holds the lock: a transaction that is still open. */
  | 'locked'
  /** Somebody else was first, and the server has rolled the transaction back: to be run again. */
  | 'deadlock'
  /** Somebody else changed what this transaction had read before: PostgreSQL above READ COMMITTED. */
  | 'not serializable'
  /** Of a savepoint, or of anything else that needs an open transaction. */
  | 'no open transaction'
  | 'read-only'
  /** The server is there and serves nobody now, or not on this connection. */
  | 'unavailable'
  /** The statement was killed, or took longer than the server lets it. */
  | 'interrupted'
  /** This user may not. */
  | 'refused'
  /** The server answered; what, does not matter here. */
  | 'other';

/** The last word of a server on a connection is no answer to what was sent on it. */
export type Said = Meaning | 'connection lost';
