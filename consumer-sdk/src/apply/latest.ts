import { randomUUID } from 'node:crypto';
import type {
  ClaimOn,
  LocalDatabase,
  Mysql2Connection,
  Mysql2Pool,
  Mysql2Transaction,
} from '@escrowmq/database';
import { databaseOf, LostRace, refuseNested, runClaimed } from '@escrowmq/database';
import { attempt, EscrowError, requireFunction, textOfError } from '@escrowmq/protocol';
import { type ApplyOptions, checkMessage, limitsOf, type OnceMessage } from './apply-options.js';
import { begin } from './begin.js';
import { endedInside } from './ended-inside.js';
import {
  missingLatestTable,
  type News,
  type ObjectRow,
  ROW_COLUMNS,
  readRow,
  writeNews,
} from './latest-table.js';

/** Which object a message is about, and how new what it says is. */
export interface LatestOptions extends ApplyOptions {
  /**
   * The object's own key, such as `order:7`; 1 to 255 bytes of UTF-8, compared byte by byte, the
   * same for every message about the object.
   */
  key: string;
  /**
   * The business time: when, or in which version, the object was as the message says. A whole
   * number that only its producer gives, and that grows with every change: ms or a version.
   */
  at: number;
}

/** `outdated`: what is stored is as new, from another message, or newer. */
export type LatestResult = 'applied' | 'duplicate' | 'outdated';

/**
 * Applies a message when it is the latest about its object, in whatever order messages come. What
 * the database knows of the object is compared with `at`:
 *
 * - nothing, or something earlier: `work` is called, and `at` is stored with what it wrote, in one
 *   transaction;
 * - the same time: nothing is done, whichever message brought it;
 * - something later: the message is discarded, though it never was applied.
 *
 * `work` is held to the same rules as that of `once`. It overwrites: what it must not do is to add
 * to what is there, because messages in between may be left out.
 *
 * Needs the table of `ensureLatestTable` in the database, and none of `once`: its row tells repeats
 * as well. Rows stay for as long as the objects do.
 *
 * @param database a pool of mysql2/promise, or what an adapter of @escrowmq/database makes
 * @throws {EscrowError} INVALID_REQUEST for a key or a time that is none, and whatever `once` throws
 * @example
 * const { productId, price, version } = message.data;
 * await latest(pool, message, { key: `product:${productId}`, at: version }, async (tx) => {
 *   await tx.execute('replace into price (product_id, price) values (?, ?)', [productId, price]);
 * });
 */
export function latest<C extends Mysql2Connection>(
  database: Mysql2Pool<C>,
  message: OnceMessage,
  options: LatestOptions,
  work: (tx: Mysql2Transaction<C>) => Promise<unknown>,
): Promise<LatestResult>;
export function latest<Tx>(
  database: LocalDatabase<Tx>,
  message: OnceMessage,
  options: LatestOptions,
  work: (tx: Tx) => Promise<unknown>,
): Promise<LatestResult>;
export function latest<Tx>(
  given: Mysql2Pool | LocalDatabase<Tx>,
  message: OnceMessage,
  options: LatestOptions,
  work: (tx: Tx) => Promise<unknown>,
): Promise<LatestResult> {
  return begin('latest', [message], (signal, unused) =>
    apply(given, message, work, { signal, unused, options }),
  );
}

async function apply<Tx>(
  given: Mysql2Pool | LocalDatabase<Tx>,
  message: OnceMessage,
  work: (tx: Tx) => Promise<unknown>,
  {
    options,
    signal: ofHandler,
    unused,
  }: { options: LatestOptions; signal: AbortSignal | undefined; unused: () => void },
): Promise<LatestResult> {
  const limits = limitsOf(options, 'latest', ['key', 'at']);
  checkMessage(message, 'latest');
  requireFunction(work, 'work', 'latest');
  const { key, at, front } = options;
  checkKey(key);
  checkTime(at);
  const database = databaseOf(given) as LocalDatabase<Tx>;
  if (options.separate !== true) refuseNested(database as LocalDatabase<never>, 'latest');
  const { id, group, signal = ofHandler } = message;
  const object = { group, key };
  const known = attempt(() => front?.newest(database, object), undefined);
  // What is stored only ever grows.
  if (known !== undefined && known.at >= at) {
    return known.messageId === id ? 'duplicate' : 'outdated';
  }
  const news: News = { at, messageId: id, token: randomUUID() };
  const what = `message ${id}`;
  const skipped = await runClaimed<Tx, 'duplicate' | 'outdated'>({
    database,
    what,
    signal,
    limits,
    claim: (on) => claim(on, object, news),
    isClaimed: async (on) => (await read(on, object))?.token === news.token,
    ended: endedInside(what),
    unused,
    missingTable: missingLatestTable,
    work,
  });
  if (skipped === undefined) {
    attempt(() => front?.noteNewest(database, object, { at, messageId: id }), undefined);
  }
  return skipped ?? 'applied';
}

async function claim(
  on: ClaimOn,
  object: ObjectRow,
  news: News,
): Promise<'duplicate' | 'outdated' | undefined> {
  const { sql, values } = writeNews(on.dialect, object, news);
  await on.executor.execute(sql, values);
  const found = await read(on, object);
  if (found === undefined) {
    throw new LostRace(`the row of the object ${JSON.stringify(object.key)} was deleted meanwhile`);
  }
  if (found.token === news.token) return undefined;
  return found.messageId === news.messageId ? 'duplicate' : 'outdated';
}

async function read(
  { executor, dialect }: ClaimOn,
  object: ObjectRow,
): Promise<{ messageId: string; token: string } | undefined> {
  const { sql, values } = readRow(dialect, object);
  const [row] = await executor.select(sql, ROW_COLUMNS, values);
  return row && { messageId: row.message, token: row.token };
}

/** What the primary key of the table holds. */
const KEY_BYTES_MAX = 255;

/** @throws {EscrowError} INVALID_REQUEST */
function checkKey(key: unknown): void {
  const bytes = typeof key === 'string' ? Buffer.from(key) : Buffer.alloc(0);
  if (bytes.length === 0 || bytes.length > KEY_BYTES_MAX) {
    throw invalid(`key must be a text of 1 to ${KEY_BYTES_MAX} bytes of UTF-8`);
  }
  // A lone surrogate would become another character, and two keys one.
  if (bytes.includes(0) || bytes.toString() !== key) {
    throw invalid('key must be text without a NUL character, in pairs of surrogates only');
  }
}

/** @throws {EscrowError} INVALID_REQUEST */
function checkTime(at: unknown): void {
  if (!Number.isSafeInteger(at)) {
    throw invalid(`at must be a whole number up to 2^53-1, got ${textOfError(at)}`);
  }
}

const invalid = (message: string) => new EscrowError('INVALID_REQUEST', `latest: ${message}`);
