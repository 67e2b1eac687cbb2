/**
 * Replies to a declaration after which asking again changes nothing until somebody repairs it: no
 * permission, or an exchange of that name with another type.
 */
const REFUSING_REPLIES = new Set([403, 406]);

/** True for what won't be different next time, as against an end of the channel or connection. */
export function isRefusal(error: unknown): boolean {
  // The client library throws these for what AMQP has no way to say.
  if (error instanceof TypeError || error instanceof RangeError) return true;
  return REFUSING_REPLIES.has(replyCodeOf(error));
}

/** The AMQP reply code of an error of the client library, or 0. */
export function replyCodeOf(error: unknown): number {
  return error instanceof Error && 'code' in error && typeof error.code === 'number'
    ? error.code
    : 0;
}

/** What RabbitMQ said, without what the client library put around it. */
export function saidIn(error: Error): string {
  return /with message "(.*)"$/s.exec(error.message)?.[1] ?? error.message;
}

/**
 * RabbitMQ names the exchange in its text only: "NOT_FOUND - no exchange 'user' in vhost '/'",
 * "ACCESS_REFUSED - access to exchange 'user' in vhost '/' refused for user 'broker'".
 */
export function exchangeNamedIn(error: Error): string | undefined {
  return /exchange '([^']+)'/.exec(error.message)?.[1];
}

/**
 * The configured `max_message_size`, when exceeding it closed the channel: "PRECONDITION_FAILED -
 * message size 200000 is larger than configured max size 100000".
 */
export function bodyBytesMaxNamedIn(error: Error): number | undefined {
  const text = /message size \d+.* max size (\d+)/.exec(error.message)?.[1];
  return text === undefined ? undefined : Number(text);
}

/** What a `basic.return` carries beside the usual fields of a message, which its type leaves out. */
export function returnReason(fields: object): string {
  const code = 'replyCode' in fields ? String(fields.replyCode) : '';
  const text = 'replyText' in fields ? String(fields.replyText) : '';
  return `${code} ${text}`;
}
