import {
  EscrowError,
  isPlainId,
  type MessageDataInput,
  MessageDataList,
  type OperationTrace,
  type PrepareInput,
  PrepareRequest,
  parse,
  plainPrepare,
  plainSend,
  type SendInput,
  SendRequest,
  TransactionId,
} from '@escrowmq/protocol';
import { uuidv7 } from 'uuidv7';

/** What `prepare` takes: the messages and how their transaction is found and checked. */
export interface PrepareOptions extends Omit<PrepareInput, 'producerGroup'> {
  /** W3C trace context that the messages carry to their consumers. @default that of the span */
  trace?: OperationTrace;
}
/** What `send` takes: the messages and how they are found. */
export interface SendOptions extends Omit<SendInput, 'producerGroup'> {
  /** W3C trace context that the messages carry to their consumers. @default that of the span */
  trace?: OperationTrace;
}

/** One operation of a batch, checked and written as JSON. */
export interface Operation {
  op: 'prepare' | 'send' | 'commit' | 'rollback';
  id: string;
  json: string;
  /** Of `json` in UTF-8. */
  bytes: number;
}

/** Who writes operations, and how large each may be. */
export interface Writing {
  producerGroup: string;
  /** Of one operation as JSON in UTF-8. */
  transactionBytesMax: number;
}

/**
 * The operation with a trace, for one that has none: put at the end of what is written already.
 *
 * @throws {EscrowError} BODY_TOO_LARGE
 */
export function withTrace(
  operation: Operation,
  trace: OperationTrace,
  transactionBytesMax: number,
): Operation {
  const json = `${operation.json.slice(0, -1)},"trace":${JSON.stringify(trace)}}`;
  return measured({ ...operation, json }, transactionBytesMax);
}

/** @throws {EscrowError} INVALID_ID */
export function idOf(id: string): string {
  return isPlainId(id) ? id : parse(TransactionId, id, 'id');
}

/** @throws {EscrowError} the code of the field that is wrong, or BODY_TOO_LARGE */
export function prepareOperation(
  { producerGroup, transactionBytesMax }: Writing,
  options: PrepareOptions,
): Operation {
  const id = options.id === undefined ? uuidv7() : idOf(options.id);
  const checked =
    plainPrepare(options) ??
    parse(PrepareRequest, { ...withoutTrace(options), id, producerGroup }, 'the prepare');
  const operation = { op: 'prepare', producerGroup, ...checked, id } as const;
  return written(operation, { trace: options.trace, transactionBytesMax });
}

/** @throws {EscrowError} like `prepareOperation` */
export function sendOperation(
  { producerGroup, transactionBytesMax }: Writing,
  options: SendOptions,
): Operation {
  const id = options.id === undefined ? uuidv7() : idOf(options.id);
  const checked =
    plainSend(options) ??
    parse(SendRequest, { ...withoutTrace(options), id, producerGroup }, 'the send');
  const operation = { op: 'send', producerGroup, ...checked, id } as const;
  return written(operation, { trace: options.trace, transactionBytesMax });
}

/**
 * The commit that brings the data that the prepare left open.
 *
 * @throws {EscrowError} INVALID_ID, BODY_TOO_LARGE, or the code of the data that are wrong
 */
export function commitWithData(
  given: string,
  messageData: MessageDataInput[],
  { transactionBytesMax }: Pick<Writing, 'transactionBytesMax'>,
): Operation {
  const id = idOf(given);
  const checked = parse(MessageDataList, messageData, 'messageData');
  return written({ op: 'commit', id, messageData: checked }, { transactionBytesMax });
}

/** @throws {EscrowError} INVALID_ID */
export function verdictOperation(op: 'commit' | 'rollback', given: string): Operation {
  const id = idOf(given);
  // Nothing in it needs escaping, and each of its characters is one byte.
  const json = `{"op":"${op}","id":"${id}"}`;
  return { op, id, json, bytes: json.length };
}

/** The trace belongs to the operation and not to the request. */
function withoutTrace<T extends { trace?: OperationTrace }>({ trace, ...rest }: T) {
  return rest;
}

function written<T extends Pick<Operation, 'op' | 'id'>>(
  operation: T,
  {
    trace,
    transactionBytesMax,
  }: { trace?: OperationTrace | undefined } & Pick<Writing, 'transactionBytesMax'>,
): Operation {
  const { op, id } = operation;
  const json = toJson(id, trace === undefined ? operation : { ...operation, trace });
  return measured({ op, id, json }, transactionBytesMax);
}

function measured({ op, id, json }: Omit<Operation, 'bytes'>, bytesMax: number): Operation {
  const bytes = Buffer.byteLength(json);
  if (bytes <= bytesMax) return { op, id, json, bytes };
  throw tooLarge(`transaction ${id}`, bytes, { bytesMax });
}

/** @param what is too large; begins the sentence */
export function tooLarge(
  what: string,
  bytes: number,
  { bytesMax }: { bytesMax: number },
): EscrowError {
  return new EscrowError(
    'BODY_TOO_LARGE',
    `${what} is ${bytes} bytes as JSON; at most ${bytesMax} are allowed: transactionBytesMax of the producer, and ESCROW_TRANSACTION_BYTES_MAX of the broker, which must be as large`,
    { details: { bytesMax } },
  );
}

function toJson(id: string, operation: object): string {
  try {
    return JSON.stringify(operation);
  } catch (cause) {
    throw new EscrowError('INVALID_REQUEST', `the data of ${id} can not be written as JSON`, {
      cause,
    });
  }
}
