import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { printable } from './names.js';

/** What RFC 3986 lets stand in a URI reference, or in a URI, which begins with its scheme. */
const URI_REFERENCE = /^(?:[\w\-.~:/?#[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+$/;
const URI_SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*:/;

const uriReference = z
  .string()
  .max(LIMITS.cloudEventsAttributeCharsMax)
  .refine((value) => URI_REFERENCE.test(value), {
    error: 'must be a URI reference, such as /accounts or https://example.com/accounts',
  });

/**
 * Asks for CloudEvents attributes as headers. `id`, `time`, `specversion` and the content type are
 * the message's own; what is left out follows from the message too. Each has at most 256 characters.
 */
export interface CloudEvents {
  /** Where it happened, as a URI reference. @default /producer-groups/<producer group> */
  source?: string | undefined;
  /** What kind of event it is. @default the routing key, or the topic when that is empty */
  type?: string | undefined;
  /** What it is about, within the source. @default none */
  subject?: string | undefined;
  /** The schema that the data fit, as a URI with its scheme. @default none */
  dataschema?: string | undefined;
}

/** Holds CloudEvents attributes to what the binding allows: `source` and `dataschema` are URIs. */
export const CloudEvents = named<CloudEvents>()(
  z
    .strictObject({
      source: uriReference.optional().describe('Default: /producer-groups/<producer group>'),
      type: printable(LIMITS.cloudEventsAttributeCharsMax)
        .optional()
        .describe('Default: the routing key, or the topic when that is empty'),
      subject: printable(LIMITS.cloudEventsAttributeCharsMax).optional(),
      dataschema: uriReference
        .refine((value) => URI_SCHEME.test(value), {
          error: 'must be a URI with its scheme, such as https://example.com/schemas/user',
        })
        .optional(),
    })
    .meta({ id: 'CloudEvents' }),
);
