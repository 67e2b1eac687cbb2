import {
  type Executor,
  executorOn,
  type LocalDatabase,
  type OpenTransaction,
  type SqlValue,
  savepointGuard,
  type TransactionLimits,
  within,
} from '@escrowmq/database';
import { INSERT_CONSUMED, lockConsumedSql } from '../../consumer-sdk/src/apply/consumed-table.js';
import { BARRIER_SQL } from '../../producer-sdk/src/local/barrier-sql.js';
import type { Faults } from './faults.js';
import type { Process, Scheduler, Timer } from './scheduler.js';

/**
 * A service's own database, as much of InnoDB under READ COMMITTED as its users here can tell: rows
 * with a unique key, a lock on each row that a transaction has written, waits for that lock which time
 * out, deadlocks, connections that die, and a COMMIT that may be on its way when its sender has given
 * up. It knows the statements of the SDKs by their text, which is the shipped text; an unknown one is
 * an error.
 *
 * The server is the world's: what was sent to it happens even when the sender is dead by then.
 */
type Access = 'insert' | 'lockingRead';
const KEYED: Record<string, { access: Access; table: string }> = {
  [BARRIER_SQL.mysql.insert]: { access: 'insert', table: 'barrier' },
  [BARRIER_SQL.mysql.read]: { access: 'lockingRead', table: 'barrier' },
  [INSERT_CONSUMED.mysql]: { access: 'insert', table: 'consumed' },
  [lockConsumedSql('mysql')]: { access: 'lockingRead', table: 'consumed' },
};
const SET_LOCK_WAIT = 'set session innodb_lock_wait_timeout = ';
const LOCK_WAIT_SECONDS_DEFAULT = 50;
/** How long the adapter waits for ROLLBACK before it closes the connection instead. */
const ROLLBACK_MS_MAX = 2_000;

/** What a callback gets: it does the business, whatever that is. */
export interface MemoryTx {
  /** Writes a row that is there once the transaction has committed. */
  write(row: string): Promise<void>;
  /** What a callback must not do: DDL, a COMMIT of its own. What follows is in autocommit. */
  commitByMistake(): Promise<void>;
}

/** As a server says it, in the form that mysql2 gives it. */
const serverError = (errno: number, message: string) =>
  Object.assign(new Error(message), { errno, sqlState: 'HY000' });
type Row = Record<string, unknown>;
/** What the locking reads of both tables ask for. */
const rowOf = (decision: string): Row => ({ decision, data: null, id: decision });
const connectionLost = () => new Error('read ECONNRESET');

interface Connection {
  owner: Process;
  /** Its client can use it. */
  isUsable: boolean;
  /** The transaction on it, at the server. */
  state: 'idle' | 'open' | 'committing' | 'ended';
  hasSavepoint: boolean;
  lockWaitMs: number;
  keys: { key: string; decision: string }[];
  written: string[];
  /** The last statement that was sent or waits to be; absent when all were answered. */
  last: Promise<unknown> | undefined;
}

interface Waiter {
  connection: Connection;
  retry(): void;
  fail(error: Error): void;
  timer: Timer;
}

interface Lock {
  holder: Connection;
  waiters: Waiter[];
}

export class MemoryDatabase {
  /** Durable rows: by table and key, and what they say. */
  readonly rows = new Map<string, string>();
  /** Durable business rows, with how often each was written. */
  readonly written = new Map<string, number>();
  readonly #locks = new Map<string, Lock>();
  readonly #connections = new Set<Connection>();
  readonly #scheduler: Scheduler;
  readonly #faults: Faults;
  readonly #server: Process;

  constructor(on: { scheduler: Scheduler; faults: Faults; server: Process }) {
    this.#scheduler = on.scheduler;
    this.#faults = on.faults;
    this.#server = on.server;
  }

  /** As one process of a service reaches it. */
  reachedFrom(owner: Process): LocalDatabase<MemoryTx> {
    return {
      kind: 'database',
      dialect: 'mysql',
      layer: 'memory',
      transaction: (work, limits) => this.#transaction(owner, work, limits),
      session: (work, limits) => this.#session(owner, work, limits),
    };
  }

  /** Of a crashed process: the server notices sooner or later, and rolls back what was open. */
  dropConnectionsOf(owner: Process): void {
    for (const connection of this.#connections) {
      if (connection.owner === owner) this.#lose(connection);
    }
  }

  get hasOpen(): boolean {
    return this.#connections.size > 0;
  }

  #connect(owner: Process, state: 'idle' | 'open'): Connection {
    const connection: Connection = {
      owner,
      isUsable: true,
      state,
      hasSavepoint: false,
      lockWaitMs: LOCK_WAIT_SECONDS_DEFAULT * 1000,
      keys: [],
      written: [],
      last: undefined,
    };
    this.#connections.add(connection);
    return connection;
  }

  async #transaction<T>(
    owner: Process,
    work: (open: OpenTransaction<MemoryTx>) => Promise<T>,
    limits: TransactionLimits,
  ): Promise<T> {
    const connection = this.#connect(owner, 'open');
    const executor = this.#executor(connection);
    const tx = {
      write: (row: string) => this.#inTurn(connection, () => this.#write(connection, row)),
      commitByMistake: () => this.#inTurn(connection, () => this.#commit(connection)),
    };
    let value: T;
    try {
      value = await work({ tx, executor, guard: savepointGuard(executor) });
    } catch (error) {
      await this.#rollBackFor(connection);
      throw error;
    }
    const committed = this.#inTurn(connection, () => this.#commit(connection));
    await within(committed, limits.commitTimeoutMs, {
      error: () => new Error(`no answer to COMMIT within ${limits.commitTimeoutMs} ms`),
    });
    return value;
  }

  async #session<T>(
    owner: Process,
    work: (executor: Executor) => Promise<T>,
    limits: TransactionLimits,
  ): Promise<T> {
    const connection = this.#connect(owner, 'idle');
    try {
      return await within(work(this.#executor(connection)), limits.commitTimeoutMs, {
        error: () => new Error(`no answer within ${limits.commitTimeoutMs} ms`),
      });
    } finally {
      this.#close(connection);
    }
  }

  #executor(connection: Connection): Executor {
    return executorOn({
      layer: 'the simulated database',
      hooks: 'nothing',
      send: (sql, values) => this.#inTurn(connection, () => this.#execute(connection, sql, values)),
    });
  }

  /** As drivers do: a statement is sent when the one before it was answered, which may be never. */
  #inTurn<T>(connection: Connection, send: () => Promise<T>): Promise<T> {
    const { last } = connection;
    const sent = last === undefined ? send() : last.then(send, send);
    connection.last = sent;
    const answered = () => {
      if (connection.last === sent) connection.last = undefined;
    };
    sent.then(answered, answered);
    return sent;
  }

  async #execute(connection: Connection, sql: string, values: readonly SqlValue[]): Promise<Row[]> {
    if (!connection.isUsable) throw connectionLost();
    const keyed = KEYED[sql];
    if (keyed !== undefined) return this.#keyed(connection, { ...keyed, values });
    // What follows touches nothing that others could see, so when it happens makes no difference.
    if (sql.startsWith(SET_LOCK_WAIT)) {
      connection.lockWaitMs = Number(sql.slice(SET_LOCK_WAIT.length)) * 1000;
      return [];
    }
    if (sql.startsWith('select @@')) {
      return [{ wait: connection.lockWaitMs / 1000, readonly: '0' }];
    }
    if (sql.startsWith('savepoint ')) {
      connection.hasSavepoint = true;
      return [];
    }
    if (sql.startsWith('release savepoint ') || sql.startsWith('rollback to savepoint ')) {
      if (connection.hasSavepoint) return [];
      throw serverError(1305, 'SAVEPOINT does not exist');
    }
    throw new Error(`the simulated database does not know: ${sql}`);
  }

  #keyed(
    connection: Connection,
    { access, table, values }: { access: Access; table: string; values: readonly SqlValue[] },
  ): Promise<Row[]> {
    const isInsert = access === 'insert';
    const decision = table === 'barrier' && isInsert ? String(values[1]) : 'consumed';
    const key = table === 'barrier' ? `barrier ${values[0]}` : `consumed ${values.join(' ')}`;
    return new Promise((resolve, reject) => {
      const answer = (end: () => void) => this.#answer(connection, `${access} answered`, end);
      const attempt = () => {
        if (connection.state === 'ended') return;
        const lock = this.#locks.get(key);
        if (lock !== undefined && lock.holder !== connection) {
          this.#wait(lock, { connection, attempt, fail: (error) => answer(() => reject(error)) });
          return;
        }
        const there = lock === undefined ? this.rows.get(key) : decision;
        if (!isInsert) answer(() => resolve(there === undefined ? [] : [rowOf(there)]));
        else if (there !== undefined) answer(() => reject(serverError(1062, 'Duplicate entry')));
        else {
          this.#insert(connection, key, decision);
          answer(() => resolve([]));
        }
      };
      if (this.#losesConnection(connection, reject)) return;
      this.#scheduler.park(this.#server, `${access} ${key} ${isInsert ? decision : ''}`, attempt);
    });
  }

  #insert(connection: Connection, key: string, decision: string): void {
    if (connection.state === 'idle') {
      this.rows.set(key, decision);
      return;
    }
    connection.keys.push({ key, decision });
    this.#locks.set(key, { holder: connection, waiters: [] });
  }

  #wait(
    lock: Lock,
    waiting: { connection: Connection; attempt(): void; fail(error: Error): void },
  ): void {
    const { connection, attempt, fail } = waiting;
    const timer = this.#scheduler.after(this.#server, connection.lockWaitMs, {
      name: 'lock wait times out',
      run: () => {
        lock.waiters = lock.waiters.filter((one) => one !== waiter);
        fail(serverError(1205, 'Lock wait timeout exceeded'));
      },
    });
    const waiter: Waiter = { connection, retry: attempt, fail, timer };
    lock.waiters.push(waiter);
  }

  /** Whoever waited goes on. Two that wait for a row that never came are a deadlock, now and then. */
  #unlock(key: string, isThere: boolean): void {
    const lock = this.#locks.get(key);
    if (lock === undefined) return;
    this.#locks.delete(key);
    lock.waiters.forEach(({ timer, retry, fail, connection }, place) => {
      this.#scheduler.cancel(timer);
      const isVictim = place > 0 && !isThere && this.#scheduler.random.chance(0.5);
      if (!isVictim) this.#scheduler.park(this.#server, 'lock granted', retry);
      else {
        if (connection.state === 'open') this.#end(connection, { isDurable: false });
        fail(serverError(1213, 'Deadlock found'));
      }
    });
  }

  #write(connection: Connection, row: string): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!connection.isUsable) {
        reject(connectionLost());
        return;
      }
      if (this.#losesConnection(connection, reject)) return;
      this.#answer(connection, `write ${row}`, () => {
        connection.written.push(row);
        resolve();
      });
    });
  }

  #commit(connection: Connection): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!connection.isUsable) {
        reject(connectionLost());
        return;
      }
      if (this.#losesConnection(connection, reject)) return;
      connection.state = 'committing';
      // The client may hear of a lost connection before, after or instead of the COMMIT.
      const isCut = this.#faults.strike('the connection is cut at COMMIT');
      if (isCut) {
        connection.isUsable = false;
        const reset = () => reject(connectionLost());
        this.#scheduler.park(connection.owner, 'ECONNRESET at COMMIT', reset);
      }
      this.#scheduler.park(this.#server, `commit of ${connection.owner.name}`, () => {
        this.#end(connection, { isDurable: true });
        if (isCut || this.#faults.strike('the answer to COMMIT is lost')) return;
        this.#answer(connection, 'COMMIT answered', resolve);
      });
    });
  }

  /** Closing the connection rolls back as well. */
  async #rollBackFor(connection: Connection): Promise<void> {
    const rolledBack = this.#inTurn(connection, () => this.#rollBack(connection));
    try {
      await within(rolledBack, ROLLBACK_MS_MAX, { error: connectionLost });
    } catch {
      this.#lose(connection);
    }
  }

  async #rollBack(connection: Connection): Promise<void> {
    if (!connection.isUsable) throw connectionLost();
    if (connection.state !== 'open') return;
    await new Promise<void>((resolve) => {
      this.#scheduler.park(this.#server, `rollback of ${connection.owner.name}`, () => {
        this.#end(connection, { isDurable: false });
        this.#answer(connection, 'ROLLBACK answered', resolve);
      });
    });
  }

  #losesConnection(connection: Connection, reject: (error: Error) => void): boolean {
    if (!this.#faults.strike('a database connection is lost')) return false;
    this.#lose(connection);
    this.#scheduler.park(connection.owner, 'ECONNRESET', () => reject(connectionLost()));
    return true;
  }

  /** The client is gone; a COMMIT that is on its way still arrives. */
  #lose(connection: Connection): void {
    connection.isUsable = false;
    if (connection.state === 'open') {
      this.#scheduler.park(this.#server, `rolls back for ${connection.owner.name}, gone`, () =>
        this.#end(connection, { isDurable: false }),
      );
    } else if (connection.state === 'idle') this.#close(connection);
  }

  #end(connection: Connection, { isDurable }: { isDurable: boolean }): void {
    if (connection.state === 'ended') return;
    const { keys, written } = connection;
    this.#close(connection);
    if (isDurable) {
      for (const { key, decision } of keys) this.rows.set(key, decision);
      for (const row of written) this.written.set(row, (this.written.get(row) ?? 0) + 1);
    }
    for (const { key } of keys) this.#unlock(key, isDurable);
  }

  /** An autocommit statement that waits at the server may still go through. */
  #close(connection: Connection): void {
    if (connection.state !== 'idle') connection.state = 'ended';
    connection.hasSavepoint = false;
    this.#connections.delete(connection);
  }

  #answer(connection: Connection, name: string, end: () => void): void {
    this.#scheduler.park(connection.owner, name, end);
  }
}
