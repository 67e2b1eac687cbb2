import { CLOUD_EVENTS_PREFIX, HEADERS } from '@escrowmq/protocol';

/** What of a message goes into the headers of its request. */
export interface Notified {
  id: string;
  transactionId: string;
  number: number;
  topic: string;
  routingKey: string;
  contentType: string;
  producerGroup: string;
  preparedAt: number;
  /** The message's own; of these the trace context and the attributes of CloudEvents go along. */
  headers: Readonly<Record<string, unknown>>;
  /** Attempts that have failed so far. */
  attempts: number;
}

/** From 1; a consumer's own header counts the attempts that have failed. */
const ATTEMPT = 'escrow-attempt';
const PRODUCER_GROUP = 'escrow-producer-group';

/**
 * The headers of a request but those of its signature: the names that the message has in RabbitMQ.
 * A producer's own headers are left out: one named `authorization` or `host` would speak for the
 * broker.
 */
export function requestHeaders(message: Notified): Record<string, string> {
  const { traceparent, tracestate } = message.headers;
  return {
    'user-agent': 'escrowmq-broker',
    'content-type': headerText(message.contentType),
    [HEADERS.transactionId]: message.transactionId,
    [HEADERS.messageNumber]: String(message.number),
    [HEADERS.topic]: message.topic,
    [HEADERS.routingKey]: headerText(message.routingKey),
    [HEADERS.preparedAt]: String(message.preparedAt),
    [PRODUCER_GROUP]: message.producerGroup,
    [ATTEMPT]: String(message.attempts + 1),
    ...cloudEventsHeaders(message.headers),
    ...(typeof traceparent === 'string' ? { traceparent: headerText(traceparent) } : {}),
    ...(typeof tracestate === 'string' ? { tracestate: headerText(tracestate) } : {}),
  };
}

/** As the HTTP binding of CloudEvents has them, in binary mode. */
function cloudEventsHeaders(headers: Notified['headers']): Record<string, string> {
  const attributes = Object.entries(headers).flatMap(([name, value]) =>
    name.startsWith(CLOUD_EVENTS_PREFIX) && typeof value === 'string'
      ? [[`ce-${name.slice(CLOUD_EVENTS_PREFIX.length)}`, escaped(value, /[^\x21-\x7e]+|["%]/gu)]]
      : [],
  );
  return Object.fromEntries(attributes);
}

/** A header holds printable ASCII. */
const headerText = (text: string): string => escaped(text, /[^\x20-\x7e]+/gu);

/** The bytes of these characters are percent-encoded. */
function escaped(text: string, characters: RegExp): string {
  return text.replace(characters, (others) =>
    [...Buffer.from(others)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}
