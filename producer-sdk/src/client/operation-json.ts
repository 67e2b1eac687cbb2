import {
  EscrowError,
  isPlainId,
  LIMITS,
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
export type PrepareOptions = Omit<PrepareInput, 'producerGroup'> & { trace?: OperationTrace };
/** What `send` takes. */
export type SendOptions = Omit<SendInput, 'producerGroup'> & { trace?: OperationTrace };

/** One operation of a batch, checked and written as JSON. */
export interface Operation {
  op: 'prepare' | 'send' | 'commit' | 'rollback';
  id: string;
  json: string;
  /** Of `json` in UTF-8. */
  bytes: number;
}

/**
 * The operation with a trace, for one that has none: put at the end of what is written already.
 *
 * @throws {EscrowError} BODY_TOO_LARGE
 */
export function withTrace(operation: Operation, trace: OperationTrace): Operation {
  const json = `${operation.json.slice(0, -1)},"trace":${JSON.stringify(trace)}}`;
  return measured({ ...operation, json });
}

/** @throws {EscrowError} INVALID_ID */
export function idOf(id: string): string {
  return isPlainId(id) ? id : parse(TransactionId, id, 'id');
}

/** @throws {EscrowError} the code of the field that is wrong, or BODY_TOO_LARGE */
export function prepareOperation(producerGroup: string, options: PrepareOptions): Operation {
  const id = options.id === undefined ? uuidv7() : idOf(options.id);
  const checked =
    plainPrepare(options) ??
    parse(PrepareRequest, { ...withoutTrace(options), id, producerGroup }, 'the prepare');
  return written({ op: 'prepare', producerGroup, ...checked, id }, options.trace);
}

/** @throws {EscrowError} like `prepareOperation` */
export function sendOperation(producerGroup: string, options: SendOptions): Operation {
  const id = options.id === undefined ? uuidv7() : idOf(options.id);
  const checked =
    plainSend(options) ??
    parse(SendRequest, { ...withoutTrace(options), id, producerGroup }, 'the send');
  return written({ op: 'send', producerGroup, ...checked, id }, options.trace);
}

/**
 * @param messageData of a commit: the data that the prepare left open
 * @throws {EscrowError} INVALID_ID, or the code of the data that are wrong
 */
export function verdictOperation(
  op: 'commit' | 'rollback',
  given: string,
  messageData?: MessageDataInput[],
): Operation {
  const id = idOf(given);
  if (messageData !== undefined && messageData.length > 0) {
    const checked = parse(MessageDataList, messageData, 'messageData');
    return written({ op, id, messageData: checked }, undefined);
  }
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
  trace: OperationTrace | undefined,
): Operation {
  const { op, id } = operation;
  const json = toJson(id, trace === undefined ? operation : { ...operation, trace });
  return measured({ op, id, json });
}

function measured({ op, id, json }: Omit<Operation, 'bytes'>): Operation {
  const bytes = Buffer.byteLength(json);
  if (bytes <= LIMITS.transactionBytesMax) return { op, id, json, bytes };
  throw new EscrowError(
    'BODY_TOO_LARGE',
    `transaction ${id} is ${bytes} bytes as JSON; at most ${LIMITS.transactionBytesMax} (transactionBytesMax) are allowed`,
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
