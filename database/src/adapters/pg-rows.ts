const asSent = (value: unknown) => value;

/**
 * For a query of pg: rows by position, and values as the server wrote them, whatever type parsers the
 * service has set, for all of pg or for its pool. What the SDK selects is text, which is the same in
 * the binary format that pg can be set to.
 */
export const AS_SENT = {
  rowMode: 'array' as const,
  types: { getTypeParser: () => asSent },
};
