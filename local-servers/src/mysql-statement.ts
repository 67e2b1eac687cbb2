/**
 * Finds a statement on the wire of MySQL, for the trap of a TcpProxy. It stands at the start of its
 * packet: the sequence number 0, the command byte 3, then the text; a driver that has agreed on
 * query attributes with the server (MySQL from 8.0.23 on; MariaDB has none) puts two bytes between,
 * which say that there are none. The same word as a value has no such bytes before it.
 *
 * @param words what the statement begins with, in any case; part of a regular expression
 * @example
 * const cut = proxy.cutNext(mysqlStatement('commit'), 'after');
 */
export function mysqlStatement(words: string): RegExp {
  return new RegExp(`\\0\\x03(?:\\0\\x01)?\\s*(?:${words})\\b`, 'i');
}
