import { z } from 'zod';
import type { ErrorCode } from './error-codes.js';
import { LIMITS } from './limits.js';
import { named, type Schema } from './named.js';

/** A string of one shape, refused with a code of its own; the shape shows in OpenAPI. */
function shaped(pattern: RegExp, code: ErrorCode, message: string): Schema<string> {
  return z
    .string()
    .refine((value) => pattern.test(value), { error: message, params: { code } })
    .meta({ pattern: pattern.source });
}

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;

/**
 * A transaction's id, chosen by the caller so that a lost call may be repeated. Version 7, because
 * its time keeps rows in order and lets the broker refuse ids that outlived their tombstones.
 */
export const TransactionId = named<string>()(
  shaped(
    UUID_V7,
    'INVALID_ID',
    'must be a UUID of version 7, such as 0198f3c2-7a10-7cc3-98c4-dc0c0c07398f',
  )
    .transform((id) => id.toLowerCase())
    .meta({ id: 'TransactionId' }),
);

/** The UTC milliseconds inside a UUIDv7. Only ever used to refuse an id, never to decide. */
export function timeOfId(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}

const name = (charsMax: number, what: string) =>
  shaped(
    new RegExp(`^[A-Za-z0-9][A-Za-z0-9._-]{0,${charsMax - 1}}$`),
    'INVALID_NAME',
    `must be a ${what} of 1 to ${charsMax} letters, digits, dots, dashes or underscores, and begin with a letter or digit`,
  );

/** The name of a producer group: 1 to 64 letters, digits, dots, dashes or underscores. */
export const ProducerGroupName = name(LIMITS.groupCharsMax, 'producer group');
/** The name of a consumer group: 1 to 64 letters, digits, dots, dashes or underscores. */
export const ConsumerGroupName = name(LIMITS.groupCharsMax, 'consumer group');

/** A topic is a durable topic exchange in RabbitMQ, which keeps names in `amq.` to itself. */
export const Topic = name(LIMITS.topicCharsMax, 'topic').refine(
  (topic) => !topic.startsWith('amq.'),
  {
    error: 'must not begin with "amq.", which RabbitMQ reserves',
    params: { code: 'INVALID_NAME' },
  },
);

// Control characters would break logs and displays; DEL and the C1 range count among them.
const PRINTABLE = /^[^\p{Cc}\p{Cs}]*$/u;

/** Bytes of a text in UTF-8. */
export const bytesOf = (text: string) => new TextEncoder().encode(text).length;

/** Text without control characters. */
export const printable = (charsMax: number): Schema<string> =>
  z
    .string()
    .min(1)
    .max(charsMax)
    .refine((value) => PRINTABLE.test(value), {
      error: 'must not contain control characters',
      params: { code: 'INVALID_NAME' },
    });

/** What RabbitMQ routes by within a topic: printable text of at most 255 bytes; may be empty. */
export const RoutingKey: Schema<string> = z
  .string()
  .refine((value) => PRINTABLE.test(value), {
    error: 'must not contain control characters',
    params: { code: 'INVALID_NAME' },
  })
  .refine((value) => bytesOf(value) <= LIMITS.routingKeyBytesMax, {
    error: `must be at most ${LIMITS.routingKeyBytesMax} bytes of UTF-8`,
    params: { code: 'INVALID_NAME' },
  });

/** A caller's own id, such as `phone:13800000000`, that a transaction can be found by. */
export const BusinessKey = printable(LIMITS.businessKeyCharsMax);

/** At most `bytesMax` of UTF-8; half of a surrogate pair has none. */
export const textOfBytes = (bytesMax: number): Schema<string> =>
  z.string().refine((value) => value.isWellFormed() && bytesOf(value) <= bytesMax, {
    error: `must be well-formed Unicode of at most ${bytesMax} bytes of UTF-8`,
  });
