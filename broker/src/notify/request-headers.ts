import { HEADERS } from '@escrowmq/protocol';

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
  /** The message's own headers and trace context; of these only the trace is passed on. */
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
    ...(typeof traceparent === 'string' ? { traceparent: headerText(traceparent) } : {}),
    ...(typeof tracestate === 'string' ? { tracestate: headerText(tracestate) } : {}),
  };
}

/** A header holds visible ASCII; the bytes of everything else are percent-encoded. */
function headerText(text: string): string {
  return text.replace(/[^\x20-\x7e]+/gu, (others) =>
    [...Buffer.from(others)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}
