import type { AnyTopic, DataOut, KeyIn, VersionIn } from '@escrowmq/protocol';
import type { BatchOptions } from '../batch/options.js';
import type { Message } from '../delivery/message.js';
import type { EphemeralMessage, EphemeralOptions } from '../ephemeral/options.js';
import type { SubscribeOptions } from '../options.js';

/** The keys of a typed topic. */
export type KeyOf<Topic extends AnyTopic> = KeyIn<Topic['schemas']>;

/** A message of one key and version, with the data that its schema gave. */
export interface FitMessage<Name extends string, Key extends string, Version extends number, Data>
  extends Message<Data> {
  readonly topic: Name;
  readonly routingKey: Key;
  /** Of the key's schema: what the message was made with. 1 of a schema that stands alone. */
  readonly version: Version;
}

/**
 * A message of a typed topic, with any of the keys: a union that `message.routingKey` tells apart, and
 * `message.version` where a key has several.
 *
 * @example
 * function onRegistered(message: TopicMessage<typeof user, 'registered'>) { … }
 */
export type TopicMessage<Topic extends AnyTopic, Key extends KeyOf<Topic> = KeyOf<Topic>> = {
  [K in Key]: {
    [V in VersionIn<Topic['schemas'], K>]: FitMessage<
      Topic['name'],
      K,
      V,
      DataOut<Topic['schemas'], K, V>
    >;
  }[VersionIn<Topic['schemas'], K>];
}[Key];

/** `topic` and `routingKeys` of a subscription to a typed topic. */
export interface OfTypedTopic<Topic extends AnyTopic, Key extends KeyOf<Topic>> {
  /** What `defineTopic` made. */
  topic: Topic;
  /**
   * Which keys of the topic; the handler gets messages of these alone. One of another key, which comes
   * by a binding of before or of another instance, is a dead letter. @default all that have a schema
   */
  routingKeys?: readonly Key[];
}

/** Options of `subscribe` for a typed topic; see `SubscribeOptions`. */
export interface TypedSubscribeOptions<Topic extends AnyTopic, Key extends KeyOf<Topic>>
  extends Omit<SubscribeOptions, 'topic' | 'routingKeys'>,
    OfTypedTopic<Topic, Key> {}

/** Options of `subscribeBatch` for a typed topic; see `BatchOptions`. */
export interface TypedBatchOptions<Topic extends AnyTopic, Key extends KeyOf<Topic>>
  extends Omit<BatchOptions, 'topic' | 'routingKeys'>,
    OfTypedTopic<Topic, Key> {}

/** Options of `subscribeEphemeral` for a typed topic; see `EphemeralOptions`. */
export interface TypedEphemeralOptions<Topic extends AnyTopic, Key extends KeyOf<Topic>>
  extends Omit<EphemeralOptions, 'topic' | 'routingKeys'>,
    OfTypedTopic<Topic, Key> {}

/** What a handler of `subscribeEphemeral` gets of a typed topic. */
export type EphemeralTopicMessage<Topic extends AnyTopic, Key extends KeyOf<Topic>> = WithoutGroup<
  TopicMessage<Topic, Key>
>;

/** Of each message of a union by itself, which keeps them apart. */
type WithoutGroup<One> = One extends Message
  ? Omit<One, Exclude<keyof Message, keyof EphemeralMessage>>
  : never;
