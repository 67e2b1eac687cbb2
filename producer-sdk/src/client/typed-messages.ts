import { within } from '@escrowmq/database';
import {
  EscrowError,
  type MessageDataInput,
  type MessageInput,
  placeOf,
  SCHEMA_VERSION_HEADER,
  type SchemaPlace,
  shownPlace,
  typedData,
} from '@escrowmq/protocol';
import { fitData } from './typed-data.js';

/*
 * Messages of typed topics, checked in the caller's own call and before anything is written. Messages of
 * plain topics pass by untouched, and calls without a typed one wait for nothing.
 */

/** How long schemas may take: most take microseconds, and some ask elsewhere. */
interface Limit {
  limitMs: number;
  /** The option that sets it. */
  option: string;
}

/**
 * What takes messages, with those of typed topics as they travel; at once where schemas answer at once.
 *
 * @throws {EscrowError} INVALID_REQUEST for data that break their schema, and for a typed message that
 *   was changed into one of another topic or key; INVALID_CONFIGURATION for a schema that throws, does
 *   not answer in time, or answers nonsense
 */
export function fitRequest<T extends { messages: MessageInput[] }>(
  request: T,
  limit: Limit,
): T | Promise<T> {
  const { messages } = request;
  // What is no list, or no message, is refused later, with what is wrong.
  const isTyped = Array.isArray(messages) && messages.some((one) => placeOf(one) !== undefined);
  if (!isTyped) return request;
  return after(all(messages.map(fitMessage), limit), (fitting) => ({
    ...request,
    messages: fitting,
  }));
}

/** Like `fitRequest`, for what was made by `data` of a typed topic. */
export function fitMessageData(
  messageData: MessageDataInput[],
  limit: Limit,
): MessageDataInput[] | Promise<MessageDataInput[]> {
  const isTyped =
    Array.isArray(messageData) && messageData.some((one) => typedData(one?.data) !== undefined);
  return isTyped ? all(messageData.map(fitOpenData), limit) : messageData;
}

/** Goes on at once with what is there at once: calls without a promise keep their order. */
export function after<T, R>(
  value: T | Promise<T>,
  next: (value: T) => R | Promise<R>,
): R | Promise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

function all<T>(values: (T | Promise<T>)[], limit: Limit): T[] | Promise<T[]> {
  const there = values.filter((value): value is T => !(value instanceof Promise));
  return there.length === values.length ? there : inTime(Promise.all(values), limit);
}

function fitMessage(message: MessageInput, number: number): MessageInput | Promise<MessageInput> {
  const place = placeOf(message);
  if (place === undefined) return message;
  const { topic, routingKey = '' } = message;
  if (topic !== place.topic || routingKey !== place.key) {
    throw new EscrowError(
      'INVALID_REQUEST',
      `message ${number} was made for ${shownPlace(place)} and was changed to topic ${topic}, key ${routingKey}; make it anew for that`,
    );
  }
  const made = withVersion(message, place, number);
  // Its data are checked when they come.
  if (message.dataAtCommit === true) return made;
  const what = `the data of message ${number}`;
  return after(fitData({ place, data: message.data, what }), ({ fit }) => ({ ...made, data: fit }));
}

function withVersion(message: MessageInput, place: SchemaPlace, number: number): MessageInput {
  const { headers = {} } = message;
  // Refused later, with what is wrong.
  if (typeof headers !== 'object' || headers === null) return message;
  const given = headers[SCHEMA_VERSION_HEADER];
  if (given !== undefined && given !== place.version) {
    throw new EscrowError(
      'INVALID_REQUEST',
      `message ${number} has the header ${SCHEMA_VERSION_HEADER}, which says with which version of ${shownPlace(place)} it was made; leave it out`,
      { fields: [{ path: `headers.${SCHEMA_VERSION_HEADER}`, message: 'is set by the topic' }] },
    );
  }
  if (!place.isVersioned) return message;
  return { ...message, headers: { ...headers, [SCHEMA_VERSION_HEADER]: place.version } };
}

function fitOpenData(given: MessageDataInput): MessageDataInput | Promise<MessageDataInput> {
  const made = typedData(given?.data);
  if (made === undefined) return given;
  const what = `the data of message ${given.number}`;
  return after(fitData({ ...made, what }), ({ fit }) => ({ ...given, data: fit }));
}

/** @throws {EscrowError} INVALID_CONFIGURATION */
export function inTime<T>(fitting: Promise<T>, { limitMs, option }: Limit): Promise<T> {
  const error = () =>
    new EscrowError(
      'INVALID_CONFIGURATION',
      `a schema of a typed topic did not answer within ${Math.round(limitMs)} ms (${option})`,
    );
  return within(fitting, limitMs, { error });
}
