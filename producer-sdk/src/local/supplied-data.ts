import {
  EscrowError,
  type MessageData,
  obstacleIn,
  type SchemaPlace,
  shownPath,
  shownPlace,
  typedData,
} from '@escrowmq/protocol';
import { tooLarge } from '../client/operation-json.js';
import { fitData } from '../client/typed-data.js';
import type { HeldMessages, OpenMessage } from './held-messages.js';

/**
 * Supplies the data of a message that was announced with `dataAtCommit: true`, such as an id that
 * the database has just made.
 *
 * It is taken as it is now: what the caller changes in it afterwards does not travel.
 *
 * For a message of a typed topic they must fit its schema: `user.data('registered', data)` lets the compiler
 * see that. A schema that answers later is waited for before COMMIT, and refuses there.
 *
 * @param data any JSON, or what `data` of a typed topic made
 * @param number of the message among those of its transaction, from 0
 *   @default the only one that is open
 * @throws {EscrowError} TRANSACTION_MISUSED when that message is not open, or has its data already;
 *   INVALID_REQUEST for data that can't travel or break their schema, with the place in `fields`; BODY_TOO_LARGE when the
 *   transaction would be larger than `transactionBytesMax` with it
 */
export type SupplyData = (data: unknown, number?: number) => void;

/** What a callback supplied for the messages whose data were left open. */
export interface SuppliedData {
  readonly supply: SupplyData;
  /**
   * Waits for schemas that answer later.
   *
   * @returns all of it; `undefined` when nothing was left open
   * @throws {EscrowError} TRANSACTION_MISUSED when a message is still open, or like `supplyData`
   */
  complete(): Promise<MessageData[] | undefined>;
  /** What was supplied so far; `undefined` when nothing was left open. */
  all(): MessageData[] | undefined;
}

export function createSuppliedData({
  id,
  open,
  size,
}: Pick<HeldMessages, 'id' | 'open' | 'size'>): SuppliedData {
  const byNumber = new Map<number, MessageData | 'being checked'>();
  /** What schemas have still to say. */
  const checks: Promise<void>[] = [];
  // What is refused here is refused before the local COMMIT: after it, nobody could take it back.
  let bytes = size.bytes;

  function keep(number: number, json: string): void {
    const dataBytes = Buffer.byteLength(json);
    if (bytes + dataBytes > size.bytesMax) {
      throw tooLarge(`transaction ${id}, with its supplied data,`, bytes + dataBytes, size);
    }
    bytes += dataBytes;
    byNumber.set(number, { number, data: JSON.parse(json) });
  }

  const all = () =>
    open.length === 0
      ? undefined
      : [...byNumber.values()].filter((data) => typeof data === 'object');
  return {
    supply(data, number = open[0]?.number ?? 0) {
      const message = open.find((one) => one.number === number);
      if (message === undefined) {
        throw misused(id, `message ${number} was not announced with dataAtCommit: true`);
      }
      if (byNumber.has(number)) throw misused(id, `message ${number} has its data already`);
      if (data === undefined) throw misused(id, `the data of message ${number} are undefined`);
      const { place, data: given } = placed(id, message, data);
      if (place === undefined) {
        keep(number, written(id, number, given));
        return;
      }
      const what = `the data supplied for message ${number} of ${id}`;
      const fit = fitData({ place, data: given, what });
      if (!(fit instanceof Promise)) {
        keep(number, JSON.stringify(fit.fit));
        return;
      }
      byNumber.set(number, 'being checked');
      const checked = fit.then(({ fit: data }) => keep(number, JSON.stringify(data)));
      checks.push(checked);
      // Heard by whoever completes; a callback that fails first completes nothing.
      checked.catch(() => undefined);
    },
    async complete() {
      await Promise.all(checks);
      const missing = open.filter(({ number }) => !byNumber.has(number));
      if (missing.length === 0) return all();
      throw misused(
        id,
        `its callback supplied no data for message ${missing.map(({ number }) => number).join(', ')}; call supplyData(data${missing.length > 1 ? ', number' : ''}) before it ends`,
      );
    },
    all,
  };
}

/** The data, and the schema that they have to fit. */
function placed(id: string, { number, place }: OpenMessage, data: unknown) {
  const made = typedData(data);
  if (made === undefined) return { place, data };
  if (isSame(made.place, place)) return { place, data: made.data };
  const open = place === undefined ? 'without a schema' : `for ${shownPlace(place)}`;
  throw misused(
    id,
    `the data of message ${number} were made for ${shownPlace(made.place)}, and the message ${open}: make both with the same topic, key and version`,
  );
}

const isSame = (made: SchemaPlace, open: SchemaPlace | undefined): boolean =>
  made.topic === open?.topic && made.key === open.key && made.version === open.version;

/** @throws {EscrowError} INVALID_REQUEST */
function written(id: string, number: number, data: unknown): string {
  const obstacle = obstacleIn(data);
  if (obstacle === undefined) return JSON.stringify(data);
  const path = shownPath(obstacle);
  const { message } = obstacle;
  throw new EscrowError(
    'INVALID_REQUEST',
    `the data supplied for message ${number} of ${id} can not travel: ${path.length === 0 ? 'it' : path.join('.')} ${message}`,
    { fields: [{ path: ['data', ...path].join('.'), message }] },
  );
}

function misused(id: string, mistake: string): EscrowError {
  return new EscrowError('TRANSACTION_MISUSED', `transaction ${id}: ${mistake}`, {
    details: { id, outcome: 'rollback' },
  });
}
