import { LIMITS } from '@escrowmq/protocol';

/**
 * Recognises requests of the plain kind, which nearly all are, without the schema: 0.2 µs where the
 * schema takes 8, and the broker checks everything once more. What is not plain is not wrong: the
 * schema takes it, or says what is wrong with it.
 *
 * Plain is a part of what the schema allows and nothing beyond, with one exception: how deep `data`
 * nests is left to the broker. What is returned is a copy of what was looked at and of nothing else,
 * so that no getter, prototype or `toJSON` puts something different on the wire.
 */
export interface PlainSend {
  messages: object[];
  businessKeys: string[] | undefined;
}
export interface PlainPrepare extends PlainSend {
  checkAfterMs: number | undefined;
  checkContext: string | undefined;
}

type Fields = Record<string, unknown>;

/** Lower case, as ids are made: the schema turns other spellings into this one. */
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const TOPIC = /^(?!amq\.)[A-Za-z0-9][A-Za-z0-9._-]*$/;
/** Printable ASCII: its characters are its bytes. */
const TEXT = /^[ -~]*$/;

export function isPlainId(id: unknown): id is string {
  return typeof id === 'string' && ID.test(id);
}

// Looked up by name: taking the rest of an object apart to see whether it is empty costs 1 µs.
const SEND_FIELDS = new Set(['id', 'trace', 'messages', 'businessKeys']);
const PREPARE_FIELDS = new Set([...SEND_FIELDS, 'checkAfterMs', 'checkContext']);
const MESSAGE_FIELDS = new Set(['topic', 'routingKey', 'data']);

/** The request without its id and trace, which are not looked at; undefined where it is not plain. */
export function plainPrepare(request: object): PlainPrepare | undefined {
  if (!hasOnly(request, PREPARE_FIELDS)) return undefined;
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

function plainMessages(given: unknown): object[] | undefined {
  if (!Array.isArray(given)) return undefined;
  if (given.length === 0 || given.length > LIMITS.messagesPerTransactionMax) return undefined;
  const messages: object[] = [];
  for (const message of given) {
    const plain = plainMessage(message);
    if (plain === undefined) return undefined;
    messages.push(plain);
  }
  return messages;
}

function plainMessage(given: unknown): object | undefined {
  if (typeof given !== 'object' || given === null) return undefined;
  if (!hasOnly(given, MESSAGE_FIELDS)) return undefined;
  const { topic, routingKey = '', data } = given as Fields;
  if (!isText(topic, LIMITS.topicCharsMax) || !TOPIC.test(topic)) return undefined;
  if (!isText(routingKey, LIMITS.routingKeyBytesMax) || data === undefined) return undefined;
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

function hasOnly(object: object, fields: ReadonlySet<string>): boolean {
  for (const field in object) if (!fields.has(field)) return false;
  return true;
}
