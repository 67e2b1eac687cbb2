import {
  type AnyTopic,
  EscrowError,
  listed,
  placesOf,
  type TopicPlaces,
  textOfError,
} from '@escrowmq/protocol';

/** Options of a subscription, of a plain topic by its name or of a typed one. */
export type Given<Options extends { topic: string }> = Omit<Options, 'topic'> & {
  topic: string | AnyTopic;
};

/** The topic by its name, and the schemas of the keys that are subscribed to. */
interface NamedTopic {
  /** What is no topic at all is refused by whoever reads it. */
  topic: unknown;
  routingKeys: readonly string[] | undefined;
  places: TopicPlaces | undefined;
}

/**
 * The name of a topic in place of the topic; a plain one stays as it is.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for a key that a typed topic has not
 */
export function namedTopic({
  topic,
  routingKeys,
}: Given<{ topic: string; routingKeys?: readonly string[] }>): NamedTopic {
  const places = placesOf(topic);
  if (places === undefined) return { topic, routingKeys, places };
  const { topic: name, byKey } = places;
  if (routingKeys === undefined) return { topic: name, routingKeys: [...byKey.keys()], places };
  // What is no list is refused by whoever reads it.
  if (!Array.isArray(routingKeys)) return { topic: name, routingKeys, places };
  const asked = routingKeys.map((key: string) => {
    const versions = byKey.get(key);
    if (versions !== undefined) return [key, versions] as const;
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `routingKeys has ${textOfError(key)}, and topic ${name} has schemas for ${listed(byKey)}: name those, or leave routingKeys out for all of them`,
    );
  });
  return { topic: name, routingKeys, places: { topic: name, byKey: new Map(asked) } };
}
