import type { InFlight } from './publish-window.js';
import { bodyBytesMaxNamedIn, exchangeNamedIn, replyCodeOf, saidIn } from './replies.js';

/*
 * RabbitMQ refuses a publish by closing the channel that it came on, with everything else that is in
 * flight there, and says why in a text of at most 255 bytes. Here is read from that text whose fault
 * it was, so that only that one is refused and the others are sent again. RabbitMQ works through a
 * channel in order: of several messages that the text fits, the first was refused, and the others
 * would have been.
 */
export type Blame =
  /** These were refused, or would have been; `routingKey` when all of that key are. */
  | { kind: 'messages'; culprits: InFlight[]; detail: string; refusedKey?: RefusedKey }
  /** Nothing may be published to the topic. */
  | { kind: 'topic'; topic: string; culprits: InFlight[]; detail: string }
  /** The exchange was deleted: it is declared again. */
  | { kind: 'gone'; topic: string }
  /** One of these, and RabbitMQ does not say which: each has to be tried alone. */
  | { kind: 'oneOf'; suspects: InFlight[] }
  /** No message's: the channel or the connection ended for another reason. */
  | { kind: 'nobody' };

export interface RefusedKey {
  topic: string;
  routingKey: string;
}

const ACCESS_REFUSED = 403;
const NOT_FOUND = 404;

/**
 * Errors of a connection that a message can cause, because it can't be read: frame, syntax, command,
 * channel, unexpected frame, resource, not implemented, internal. What an operator or a restart ends
 * has other codes (320, 530).
 */
const CONNECTION_ERRORS_OF_MESSAGES = new Set([501, 502, 503, 504, 505, 506, 540, 541]);

/**
 * Those that may as well be RabbitMQ's own trouble: a message that was alone is not refused for it,
 * which would park it in the end, but tried for as long as it takes, alone.
 */
const PERHAPS_ITS_OWN_TROUBLE = new Set([504, 506, 541]);

/** @param inFlight on the channel that RabbitMQ closed, oldest first */
export function blameFor(error: Error | undefined, inFlight: readonly InFlight[]): Blame {
  const code = replyCodeOf(error);
  if (error === undefined || code === 0 || inFlight.length === 0) return { kind: 'nobody' };
  const topic = exchangeNamedIn(error);
  if (code === NOT_FOUND && topic !== undefined) return { kind: 'gone', topic };
  const byKey = refusedByKey(error, inFlight);
  if (byKey !== undefined) return byKey;
  if (code === ACCESS_REFUSED && topic !== undefined) {
    const culprits = inFlight.filter((entry) => entry.topic === topic);
    return { kind: 'topic', topic, culprits, detail: `topic ${topic}: ${saidIn(error)}` };
  }
  const bytesMax = bodyBytesMaxNamedIn(error);
  if (bytesMax !== undefined) {
    const culprits = inFlight.filter(({ bodyBytes }) => bodyBytes > bytesMax);
    return { kind: 'messages', culprits, detail: saidIn(error) };
  }
  return oneOf(inFlight, error);
}

/** A connection has no text that names a message: whoever was alone in flight, or one of several. */
export function blameForConnection(error: Error | undefined, inFlight: readonly InFlight[]): Blame {
  if (error === undefined || inFlight.length === 0) return { kind: 'nobody' };
  if (!CONNECTION_ERRORS_OF_MESSAGES.has(replyCodeOf(error))) return { kind: 'nobody' };
  return oneOf(inFlight, error);
}

function oneOf(suspects: readonly InFlight[], error: Error): Blame {
  if (suspects.length > 1) return { kind: 'oneOf', suspects: [...suspects] };
  if (PERHAPS_ITS_OWN_TROUBLE.has(replyCodeOf(error))) return { kind: 'nobody' };
  const detail = `RabbitMQ closes the channel over this message: ${saidIn(error)}`;
  return { kind: 'messages', culprits: [...suspects], detail };
}

/**
 * "access to topic 'registered' in exchange 'user' in vhost '/' refused for user 'broker'", by which
 * RabbitMQ means the routing key. A long key leaves no room for what follows it.
 */
function refusedByKey(error: Error, inFlight: readonly InFlight[]): Blame | undefined {
  const named = /access to topic '(.*)$/s.exec(saidIn(error))?.[1];
  if (named === undefined) return undefined;
  const cut = named.endsWith('...') ? named.slice(0, -'...'.length) : undefined;
  const candidates = inFlight.filter(({ topic, routingKey }) => {
    const expected = `${routingKey}' in exchange '${topic}' in vhost`;
    return named.startsWith(expected) || (cut !== undefined && expected.startsWith(cut));
  });
  const [first] = candidates;
  if (first === undefined) return oneOf(inFlight, error);
  const { topic, routingKey } = first;
  if (candidates.some((entry) => entry.topic !== topic || entry.routingKey !== routingKey)) {
    return { kind: 'oneOf', suspects: candidates };
  }
  const detail =
    `RabbitMQ's topic permissions do not let the broker's user publish with routing key ` +
    `'${routingKey}' to topic ${topic} (rabbitmqctl set_topic_permissions): ${saidIn(error)}`;
  return { kind: 'messages', culprits: candidates, detail, refusedKey: { topic, routingKey } };
}
