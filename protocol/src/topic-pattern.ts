/**
 * Whether a routing key matches a pattern of a topic exchange as RabbitMQ matches it: words between
 * dots, `*` for exactly one, `#` for any number. The empty key has no words at all. Linear in both,
 * whatever the pattern.
 *
 * @example matchesTopicPattern('order.#', 'order') // true
 */
export function matchesTopicPattern(pattern: string, routingKey: string): boolean {
  const parts = wordsOf(pattern);
  // reached[i]: the words so far can be what stands before part i.
  let reached = pastHashes([true], parts);
  for (const word of wordsOf(routingKey)) {
    const next: boolean[] = [];
    parts.forEach((part, index) => {
      if (!reached[index]) return;
      if (part === '#') next[index] = true;
      else if (part === '*' || part === word) next[index + 1] = true;
    });
    reached = pastHashes(next, parts);
  }
  return reached[parts.length] === true;
}

/** A `#` may stand for no word, so whatever is before it is behind it as well. */
function pastHashes(reached: boolean[], parts: readonly string[]): boolean[] {
  parts.forEach((part, index) => {
    if (part === '#' && reached[index]) reached[index + 1] = true;
  });
  return reached;
}

const wordsOf = (text: string): string[] => (text === '' ? [] : text.split('.'));
