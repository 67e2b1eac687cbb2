import type { MessageProperties } from 'amqplib';

/*
 * What came from RabbitMQ, so that the client library sends it again. It reads more than it writes:
 * a double below -2^63 or with a fraction beyond 2^50 it takes for a whole number and gives up; bytes
 * that are no UTF-8 it reads as three each, and then they do not fit. A message with such a header
 * could be neither retried nor put away.
 */

/** AMQP's short strings, which names and most properties are. */
const SHORT_BYTES_MAX = 255;
const INT64_END = 2 ** 63;
/** Beyond it the library takes every number for a whole one. */
const FRACTION_END = 2 ** 50;
/** The largest number below 2^64, which times end at. */
const TIMESTAMP_MAX = 2 ** 64 - 2_048;

export function sendableTable(table: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(table).map(([name, value]) => [shortText(name), sendable(value)]),
  );
}

/** The properties of a message that are short strings, and are passed on. */
const SHORT_TEXTS = [
  'messageId',
  'type',
  'appId',
  'contentType',
  'contentEncoding',
  'correlationId',
  'replyTo',
] as const;
type ShortTexts = Partial<Record<(typeof SHORT_TEXTS)[number], string>>;

export function shortTexts(properties: MessageProperties): ShortTexts {
  const texts: ShortTexts = {};
  for (const name of SHORT_TEXTS) {
    const text: unknown = properties[name];
    if (typeof text === 'string') texts[name] = shortText(text);
  }
  return texts;
}

/** A time near the end of its 64 bits is read as one beyond it. */
export const sendableTime = (seconds: number): number => Math.min(seconds, TIMESTAMP_MAX);

/** Cut between characters where it is too long. */
function shortText(text: string): string {
  if (Buffer.byteLength(text) <= SHORT_BYTES_MAX) return text;
  const { read } = new TextEncoder().encodeInto(text, new Uint8Array(SHORT_BYTES_MAX));
  return text.slice(0, read);
}

function sendable(value: unknown): unknown {
  if (typeof value === 'number') {
    return isTakenRight(value) ? value : { '!': 'double', value };
  }
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return value;
  if (Array.isArray(value)) return value.map(sendable);
  if (!('!' in value)) return sendableTable(value as Record<string, unknown>);
  // How the library hands over what JavaScript has no type for; else a table with an odd name.
  const { '!': type, value: inside } = value as { '!': unknown; value?: unknown };
  if (type === 'decimal') return value;
  if (type !== 'timestamp' || typeof inside !== 'number') return JSON.stringify(value);
  return { '!': type, value: Math.min(inside, TIMESTAMP_MAX) };
}

function isTakenRight(value: number): boolean {
  if (Number.isInteger(value)) return value >= -INT64_END;
  return Math.abs(value) < FRACTION_END;
}
