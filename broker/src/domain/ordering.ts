import { hash } from 'node:crypto';
import { hasMessage, type Message, type MessageMask, messageBit } from './transaction.js';

/*
 * Messages of one topic and ordering key are forwarded in the order of their commits. The commit
 * numbers them, from 1 and without gaps; from then until its confirm a message has a place in the
 * line of its key, and only the first in line, the head, may be published. So the next one leaves
 * after the confirm is durable, whichever instance publishes it and however often it is repeated.
 */

const isOrdered = ({ orderingKey }: Message): boolean => orderingKey !== undefined;

export const anyOrdered = (messages: readonly Message[]): boolean => messages.some(isOrdered);

const ID_BYTES = 16;

/** Names a topic and ordering key in the store; 16 bytes of SHA-256 meet by accident never. */
export const keyIdOf = (topic: string, orderingKey: string): Buffer =>
  hash('sha256', `${topic}\0${orderingKey}`, 'buffer').subarray(0, ID_BYTES);

/** A message that takes a place in the line of its key when its transaction is committed. */
export interface OrderedMessage {
  /** Of the message in its transaction, from 0. */
  number: number;
  topic: string;
  orderingKey: string;
  keyId: Buffer;
}

/** In the order of their numbers, which is the order in which they get their sequences. */
export const orderedOf = (messages: readonly Message[]): OrderedMessage[] =>
  messages.flatMap(({ topic, orderingKey }, number) =>
    orderingKey === undefined
      ? []
      : [{ number, topic, orderingKey, keyId: keyIdOf(topic, orderingKey) }],
  );

/** Where a message that is not confirmed yet stands in the line of its key. */
export interface Place {
  /** Of the message in its transaction, from 0. */
  number: number;
  keyId: Buffer;
  sequence: number;
  /** Nothing of its key is before it. */
  isHead: boolean;
}

/**
 * A transaction of which everything waits for messages of others is looked at again after this
 * long. Only a safety net: whoever leaves the place before it makes it due.
 */
export const BLOCKED_LOOK_AGAIN_MS = 10 * 60 * 1000;

/** A transaction's pending messages, and the places of those that are ordered. */
export interface InLine {
  messages: readonly Message[];
  pending: MessageMask;
  /** Absent where nothing is ordered. */
  places?: readonly Place[] | undefined;
}

/**
 * Pending messages that must let others of their key go first. One without a place was confirmed
 * by somebody else after its row had been read, and is nothing to publish either.
 */
export function blockedOf({ messages, pending, places }: InLine): MessageMask {
  let blocked = 0;
  messages.forEach((message, number) => {
    if (!isOrdered(message) || !hasMessage(pending, number)) return;
    const place = places?.find((one) => one.number === number);
    if (place?.isHead !== true) blocked += messageBit(number);
  });
  return blocked;
}
