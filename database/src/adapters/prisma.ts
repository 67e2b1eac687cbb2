import { EscrowError } from '@escrowmq/protocol';
import type { Dialect, Executor, LocalDatabase, LocalTransaction, SqlValue } from '../database.js';
import { executorOn } from '../executor.js';
import { foreign, unknownDialect } from './layer-misuse.js';
import { managedDatabase } from './managed.js';
import { numbered } from './placeholders.js';
import { answersRows } from './rows.js';

/** A transaction of Prisma, by what the SDK uses of it; every generated client has its own type. */
export interface PrismaTransaction {
  /** Sends a statement that answers rows. */
  $queryRawUnsafe(query: string, ...values: SqlValue[]): PromiseLike<unknown>;
  /** Sends a statement that answers how many rows it changed. */
  $executeRawUnsafe(query: string, ...values: SqlValue[]): PromiseLike<number>;
}

/** A client of Prisma, by what the SDK uses of it. */
export interface PrismaDatabase<Tx> extends PrismaTransaction {
  /** Connects, where it is not connected yet. */
  $connect(): Promise<void>;
  /** Runs `work` in a transaction. */
  $transaction<T>(
    work: (tx: Tx) => Promise<T>,
    options?: {
      /** Milliseconds to wait for a connection. @default Prisma's own, 2000 */
      maxWait?: number;
      /** Milliseconds that the transaction may take. @default Prisma's own, 5000 */
      timeout?: number;
    },
  ): Promise<T>;
}

const ADAPTER = 'fromPrisma';
const TAKES = 'a PrismaClient, or the tx that prisma.$transaction hands to its callback';

/**
 * Prisma ends a transaction by itself after its own `timeout`. The SDK's `transactionTimeoutMs` does
 * that here, so Prisma's is only set out of the way: to a day.
 */
const PRISMA_TIMEOUT_MS = 24 * 60 * 60 * 1000;

/** Prisma waits this much longer for a connection, so that the SDK's limit and its error come first. */
const PRISMA_WAIT_SLACK_MS = 1_000;

/**
 * A database behind Prisma on MySQL, MariaDB or PostgreSQL; on MySQL with `useTextProtocol: true` for
 * `PrismaMariaDb`. The callback of a transaction gets Prisma's own `tx`, and the producer's `connectionTimeoutMs` and `transactionTimeoutMs` stand in
 * for `maxWait` and `timeout` of `$transaction`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for another database or object
 * @example
 * await producer.transaction(fromPrisma(prisma), message, async (tx) => {
 *   await tx.account.create({ data: { id: 7 } });
 * });
 */
export function fromPrisma<Tx extends PrismaTransaction>(
  prisma: PrismaDatabase<Tx>,
): LocalDatabase<Tx>;
/**
 * A transaction that you opened with `prisma.$transaction(async (tx) => …)`. The form that takes a
 * list of queries can't be joined. Prisma's `timeout` counts (5 s unless you set it): the broker is
 * asked within it.
 */
export function fromPrisma(tx: PrismaTransaction): LocalTransaction;
export function fromPrisma<Tx extends PrismaTransaction>(
  given: PrismaDatabase<Tx> | PrismaTransaction,
): LocalDatabase<Tx> | LocalTransaction {
  if (typeof given !== 'object' || given === null || !isFunction(given.$queryRawUnsafe)) {
    throw foreign(ADAPTER, TAKES, given);
  }
  const dialect = dialectOf(given);
  if (!isClient(given)) {
    return { kind: 'transaction', dialect, layer: 'Prisma', executor: executorOf(given, dialect) };
  }
  return managedDatabase<Tx>({
    on: given,
    dialect,
    layer: 'Prisma',
    begin: (work, { connectionTimeoutMs }) =>
      given.$transaction(work, {
        maxWait: Math.ceil(connectionTimeoutMs) + PRISMA_WAIT_SLACK_MS,
        timeout: PRISMA_TIMEOUT_MS,
      }),
    executor: (tx) => executorOf(tx, dialect),
  });
}

const isFunction = (value: unknown) => typeof value === 'function';

/** A transaction can't connect. Newer versions let it open nested ones, like a client. */
const isClient = <Tx>(given: PrismaDatabase<Tx> | PrismaTransaction): given is PrismaDatabase<Tx> =>
  '$connect' in given && isFunction(given.$connect);

const DIALECTS: Record<string, Dialect> = {
  mysql: 'mysql',
  postgresql: 'postgres',
  postgres: 'postgres',
};

function dialectOf(given: object): Dialect {
  const found: unknown = '_activeProvider' in given ? given._activeProvider : undefined;
  const dialect = DIALECTS[String(found)];
  if (dialect === undefined) throw unknownDialect(ADAPTER, found);
  return dialect;
}

function executorOf(tx: PrismaTransaction, dialect: Dialect): Executor {
  return executorOn({
    layer: 'Prisma',
    hooks: 'a client extension of $queryRawUnsafe or $allOperations',
    async send(sql, values) {
      const text = dialect === 'postgres' ? numbered(sql) : sql;
      if (answersRows(sql)) return tx.$queryRawUnsafe(text, ...values);
      try {
        return await tx.$executeRawUnsafe(text, ...values);
      } catch (error) {
        throw isUnsupportedPrepared(error) ? needsTextProtocol(error) : error;
      }
    },
  });
}

/** MySQL, unlike MariaDB, takes no savepoint in its binary protocol, Prisma's default. */
const UNSUPPORTED_PREPARED = /\bCode: `1295`/;

const isUnsupportedPrepared = (error: unknown) =>
  error instanceof Error && UNSUPPORTED_PREPARED.test(error.message);

function needsTextProtocol(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'MySQL takes no savepoint in its binary protocol; make the adapter of Prisma with new PrismaMariaDb(url, { useTextProtocol: true })',
    { cause },
  );
}
