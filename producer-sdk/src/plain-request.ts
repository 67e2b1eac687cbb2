import { LIMITS } from '@escrowmq/protocol';

/**
 * Recognises requests of the plain kind, which nearly all are, without the schema: 1 µs where the
 * schema takes 10, and the broker checks everything once more. What is not plain is not wrong: the
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

/** Lower case, as ids are made: the schema turns other spellings into this one. */
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const TOPIC = /^(?!amq\.)[A-Za-z0-9][A-Za-z0-9._-]*$/;
/** Printable ASCII: its characters are its bytes. */
const TEXT = /^[ -~]*$/;

export function isPlainId(id: unknown): id is string {
  return typeof id === 'string' && ID.test(id);
}

/** The request without id, producer group and trace; undefined where it is not plain. */
export function plainPrepare(request: Record<string, unknown>): PlainPrepare | undefined {
  const { checkAfterMs, checkContext, ...rest } = request;
  if (checkAfterMs !== undefined && !isCheckDelay(checkAfterMs)) return undefined;
  if (checkContext !== undefined && !isText(checkContext, LIMITS.checkContextBytesMax)) {
    return undefined;
  }
  const plain = plainSend(rest);
  return plain && { ...plain, checkAfterMs, checkContext };
}

/** The request without id, producer group and trace; undefined where it is not plain. */
export function plainSend(request: Record<string, unknown>): PlainSend | undefined {
  const { messages: given, businessKeys, ...others } = request;
  if (businessKeys !== undefined && !areKeys(businessKeys)) return undefined;
  const messages = plainMessages(given);
  return messages && isEmpty(others) ? { messages, businessKeys } : undefined;
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
  const { topic, routingKey = '', data, ...others } = given as Record<string, unknown>;
  if (!isText(topic, LIMITS.topicCharsMax) || !TOPIC.test(topic)) return undefined;
  if (!isText(routingKey, LIMITS.routingKeyBytesMax)) return undefined;
  return data !== undefined && isEmpty(others) ? { topic, routingKey, data } : undefined;
}

function areKeys(given: unknown): given is string[] {
  if (!Array.isArray(given) || given.length > LIMITS.businessKeysPerTransactionMax) return false;
  if (new Set(given).size < given.length) return false;
  return given.every((key) => key !== '' && isText(key, LIMITS.businessKeyCharsMax));
}

const isCheckDelay = (given: unknown): given is number =>
  Number.isInteger(given) && Number(given) >= 0 && Number(given) <= LIMITS.checkAfterMsMax;

const isText = (given: unknown, charsMax: number): given is string =>
  typeof given === 'string' && given.length <= charsMax && TEXT.test(given);

function isEmpty(object: object): boolean {
  for (const _ in object) return false;
  return true;
}
