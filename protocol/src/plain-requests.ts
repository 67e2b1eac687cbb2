import type { BatchOperation } from './batch.js';
import { LIMITS } from './limits.js';
import type { Message } from './messages.js';
import type { PrepareRequest } from './prepare.js';
import { obstacleIn } from './travelling-data.js';

/*
 * Recognises requests of the plain kind, which nearly all are, without their schema: 0.2 µs where the
 * schema takes 5 to 8. What is not plain is not wrong: the schema takes it, or says what is wrong
 * with it. Plain is a part of what the schema allows and nothing beyond.
 *
 * What is returned is a copy of what was looked at and of nothing else, so that no getter, prototype
 * or `toJSON` puts something different on the wire.
 */

/** A message with nothing but what nearly all have. */
interface PlainMessage {
  /** The topic that it goes to. */
  topic: string;
  /** What it is routed by; empty where none was given. */
  routingKey: string;
  /** Any JSON value. */
  data: unknown;
}
/** A send of the plain kind, without its id and trace. */
export interface PlainSend {
  /** What is sent. */
  messages: PlainMessage[];
  /** As given. */
  businessKeys: string[] | undefined;
}
/** A prepare of the plain kind, without its id and trace. */
export interface PlainPrepare extends PlainSend {
  /** Milliseconds until the first check, as given. */
  checkAfterMs: number | undefined;
  /** As given. */
  checkContext: string | undefined;
}

type Fields = Record<string, unknown>;

/** Lower case, as ids are made: the schema turns other spellings into this one. */
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
/** Printable ASCII: its characters are its bytes. */
const TEXT = /^[ -~]*$/;

/** Whether it is a transaction id in the spelling in which ids are made. */
export function isPlainId(id: unknown): id is string {
  return typeof id === 'string' && ID.test(id);
}

// Looked up by name: taking the rest of an object apart to see whether it is empty costs 1 µs.
const SEND_FIELDS = new Set(['id', 'trace', 'messages', 'businessKeys']);
const PREPARE_FIELDS = new Set([...SEND_FIELDS, 'checkAfterMs', 'checkContext']);
const MESSAGE_FIELDS = new Set(['topic', 'routingKey', 'data']);
const PREPARE_REQUEST_FIELDS = new Set([...PREPARE_FIELDS, 'producerGroup']);
const PREPARE_OPERATION_FIELDS = new Set([...PREPARE_REQUEST_FIELDS, 'op']);
const VERDICT_OPERATION_FIELDS = new Set(['op', 'id']);

/**
 * For the caller's side: the request without its id and trace, which are not looked at; undefined
 * where it is not plain.
 */
export function plainPrepare(request: object): PlainPrepare | undefined {
  return hasOnly(request, PREPARE_FIELDS) ? prepareFields(request) : undefined;
}

function prepareFields(request: object): PlainPrepare | undefined {
  const { messages, businessKeys, checkAfterMs, checkContext } = request as Fields;
  const plain = plainMessages(messages);
  if (plain === undefined || !areKeysIfAny(businessKeys)) return undefined;
  if (checkAfterMs !== undefined && !isCheckDelay(checkAfterMs)) return undefined;
  if (checkContext !== undefined && !isText(checkContext, LIMITS.checkContextBytesMax)) {
    return undefined;
  }
  return { messages: plain, businessKeys, checkAfterMs, checkContext };
}

/** Like `plainPrepare`; a send knows nothing of checks. */
export function plainSend(request: object): PlainSend | undefined {
  if (!hasOnly(request, SEND_FIELDS)) return undefined;
  const { messages, businessKeys } = request as Fields;
  const plain = plainMessages(messages);
  if (plain === undefined || !areKeysIfAny(businessKeys)) return undefined;
  return { messages: plain, businessKeys };
}

/** For the broker's side: what `PrepareRequest` makes of it; undefined where it is not plain. */
export function plainPrepareRequest(given: unknown): PrepareRequest | undefined {
  return isObject(given) && hasOnly(given, PREPARE_REQUEST_FIELDS)
    ? prepareRequest(given)
    : undefined;
}

/** For the broker's side: what `BatchOperation` makes of it; undefined where it is not plain. */
export function plainOperation(given: unknown): BatchOperation | undefined {
  if (!isObject(given)) return undefined;
  const { op, id } = given as Fields;
  if (op === 'prepare' && hasOnly(given, PREPARE_OPERATION_FIELDS)) {
    const request = prepareRequest(given);
    return request === undefined ? undefined : { op, ...request };
  }
  if (op !== 'commit' && op !== 'rollback') return undefined;
  return isPlainId(id) && hasOnly(given, VERDICT_OPERATION_FIELDS) ? { op, id } : undefined;
}

function prepareRequest(given: object): PrepareRequest | undefined {
  const { id, trace, producerGroup } = given as Fields;
  if (!isPlainId(id) || trace !== undefined) return undefined;
  if (!isName(producerGroup, LIMITS.groupCharsMax)) return undefined;
  const plain = prepareFields(given);
  if (plain === undefined) return undefined;
  const { businessKeys = [], checkAfterMs, checkContext } = plain;
  const messages: Message[] = [];
  for (const { topic, routingKey, data } of plain.messages) {
    messages.push({ topic, routingKey, data, headers: {}, ifUnrouted: 'retry' });
  }
  return { id, producerGroup, businessKeys, expects: [], messages, checkAfterMs, checkContext };
}

const isObject = (given: unknown): given is object => typeof given === 'object' && given !== null;

function plainMessages(given: unknown): PlainMessage[] | undefined {
  if (!Array.isArray(given)) return undefined;
  if (given.length === 0 || given.length > LIMITS.messagesPerTransactionMax) return undefined;
  const messages: PlainMessage[] = [];
  for (const message of given) {
    const plain = plainMessage(message);
    if (plain === undefined) return undefined;
    messages.push(plain);
  }
  return messages;
}

function plainMessage(given: unknown): PlainMessage | undefined {
  if (!isObject(given) || !hasOnly(given, MESSAGE_FIELDS)) return undefined;
  const { topic, routingKey = '', data } = given as Fields;
  if (!isName(topic, LIMITS.topicCharsMax) || topic.startsWith('amq.')) return undefined;
  if (!isText(routingKey, LIMITS.routingKeyBytesMax) || data === undefined) return undefined;
  if (obstacleIn(data) !== undefined) return undefined;
  return { topic, routingKey, data };
}

function areKeysIfAny(given: unknown): given is string[] | undefined {
  if (given === undefined) return true;
  if (!Array.isArray(given) || given.length > LIMITS.businessKeysPerTransactionMax) return false;
  if (new Set(given).size < given.length) return false;
  return given.every((key) => key !== '' && isText(key, LIMITS.businessKeyCharsMax));
}

const isCheckDelay = (given: unknown): given is number =>
  Number.isInteger(given) && Number(given) >= 0 && Number(given) <= LIMITS.checkAfterMsMax;

const isText = (given: unknown, charsMax: number): given is string =>
  typeof given === 'string' && given.length <= charsMax && TEXT.test(given);

const isName = (given: unknown, charsMax: number): given is string =>
  typeof given === 'string' && given.length <= charsMax && NAME.test(given);

function hasOnly(object: object, fields: ReadonlySet<string>): boolean {
  for (const field in object) if (!fields.has(field)) return false;
  return true;
}
