import { expectedGroups } from '@escrowmq/protocol';
import {
  allMessages,
  type Content,
  countOfMessages,
  hasMessage,
  type MessageMask,
  messageBit,
  withoutMessages,
} from './transaction.js';

/** A consumer group, and the messages of a transaction that it must consume. */
export interface Expectation {
  consumerGroup: string;
  messages: MessageMask;
}

const NONE: readonly Expectation[] = [];

/** In the order in which the groups are named first; each stands there once. */
export function expectationsOf(
  content: Pick<Content, 'expects' | 'messages'>,
): readonly Expectation[] {
  const { expects, messages } = content;
  // Most transactions: looked at twice for each row that is inserted.
  if (expects.length === 0 && !messages.some((message) => message.expects !== undefined)) {
    return NONE;
  }
  const byGroup = new Map<string, MessageMask>();
  messages.forEach((message, number) => {
    for (const group of expectedGroups(content, message)) {
      byGroup.set(group, (byGroup.get(group) ?? 0) + messageBit(number));
    }
  });
  return [...byGroup].map(([consumerGroup, mask]) => ({ consumerGroup, messages: mask }));
}

/** The short form: each of these groups must consume every message. */
export const expectationsOfAll = (groups: readonly string[], messageCount: number): Expectation[] =>
  groups.map((consumerGroup) => ({ consumerGroup, messages: allMessages(messageCount) }));

export const isExpected = (
  expectations: readonly Expectation[],
  { consumerGroup, number }: { consumerGroup: string; number: number },
): boolean =>
  expectations.some(
    (one) => one.consumerGroup === consumerGroup && hasMessage(one.messages, number),
  );

/**
 * How many receipts settle it: one for each expected group of each message.
 *
 * @param cancelled messages that nobody waits for any more
 */
export const receiptsWanted = (
  expectations: readonly Expectation[],
  cancelled: MessageMask = 0,
): number =>
  expectations.reduce(
    (wanted, { messages }) => wanted + countOfMessages(withoutMessages(messages, cancelled)),
    0,
  );
