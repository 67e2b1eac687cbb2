import type { MessageData } from '@escrowmq/protocol';
import type { Message } from './transaction.js';

/*
 * A message that prepare left open (`dataAtCommit`) gets its body from the commit, in the same
 * durable step as the decision. Until then nothing of its transaction can be forwarded: its row
 * has an empty mask of pending messages, by which a commit without the data passes it over.
 */

const isOpen = ({ dataAtCommit }: Message): boolean => dataAtCommit === true;

/** True when a message of these waits for its data. */
export const anyOpen = (messages: readonly Message[]): boolean => messages.some(isOpen);

/** Numbers of the messages that wait for their data. */
export const openNumbers = (messages: readonly Message[]): number[] =>
  messages.flatMap((message, number) => (isOpen(message) ? [number] : []));

/** Why a commit can not be taken as it is; nothing is decided by it. */
export type DataRefusal =
  /** These are open, and the commit does not bring their data. */
  | { kind: 'missing'; numbers: number[] }
  /** The commit brings data for these, which are not open, or not there at all. */
  | { kind: 'notOpen'; numbers: number[] }
  /** With its data, the transaction would be larger than one may be. */
  | { kind: 'tooLarge'; bytes: number; bytesMax: number }
  /** With its data, it is what the store does not take, and why. */
  | { kind: 'notStorable'; why: 'tooLarge' | 'badValue'; detail: string };

export type Filled =
  | { kind: 'filled'; messages: Message[]; messagesJson: string; bytes: number }
  | { kind: 'refused'; refusal: DataRefusal };

/** What a commit brings along for the messages that prepare left open. */
export interface Supplied {
  data: readonly MessageData[];
  /** Limit for all messages of the transaction as JSON, those with data from the start included. */
  bytesMax: number;
}

/** The messages with the data in place: every open one exactly once, and none else. */
export function fill(messages: readonly Message[], { data, bytesMax }: Supplied): Filled {
  const refused = (refusal: DataRefusal): Filled => ({ kind: 'refused', refusal });
  const given = new Map(data.map((one) => [one.number, one]));
  const open = openNumbers(messages);
  const notOpen = [...given.keys()].filter((number) => !open.includes(number));
  if (notOpen.length > 0) return refused({ kind: 'notOpen', numbers: notOpen });
  const missing = open.filter((number) => !given.has(number));
  if (missing.length > 0) return refused({ kind: 'missing', numbers: missing });
  const filled = messages.map((message, number) => withBody(message, given.get(number)));
  const messagesJson = JSON.stringify(filled);
  const bytes = Buffer.byteLength(messagesJson);
  if (bytes > bytesMax) return refused({ kind: 'tooLarge', bytes, bytesMax });
  return { kind: 'filled', messages: filled, messagesJson, bytes };
}

function withBody(message: Message, given: MessageData | undefined): Message {
  if (given === undefined) return message;
  const { dataAtCommit, ...rest } = message;
  const { number, ...body } = given;
  return { ...rest, ...body };
}
