/**
 * What an `amqp://` URL says, read once for the broker and the consumer SDK. The client library
 * takes names and passwords out of a URL byte by byte, so that a `ü` arrives as two other letters
 * and the login is refused; here they are UTF-8.
 */
export interface RabbitLogin {
  /** Whether it is `amqps://`. */
  tls: boolean;
  /** Without the brackets of an IPv6 address. */
  hostname: string;
  /** 5671 with TLS and 5672 without, where the URL has no port. */
  port: number;
  /** Host and port as they stand in the URL: what may be shown. */
  shown: string;
  /** The virtual host; `/` where the URL has none. */
  vhost: string;
  /** `guest` where the URL has none. */
  username: string;
  /** Never shown. */
  password: string;
  /** The largest frame that is asked for, in bytes; 0 is without limit. */
  frameBytesMax: number;
}

/** What the client library asks for where the URL says nothing. */
const FRAME_BYTES_MAX_DEFAULT = 131_072;
/** AMQP's own minimum; RabbitMQ from 4.1 on refuses less than 8192, with a word. */
const FRAME_BYTES_MAX_MIN = 4_096;

/** Reads a URL. @param url one in which `rabbitUrlProblem` finds nothing */
export function rabbitLoginOf(url: string): RabbitLogin {
  const parsed = new URL(url);
  const { protocol, hostname, port, host, pathname, username, password, searchParams } = parsed;
  const tls = protocol === 'amqps:';
  const isAnonymous = username === '' && password === '';
  const vhost = decoded(pathname.slice(1));
  return {
    tls,
    hostname: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (tls ? 5671 : 5672) : Number(port),
    shown: host,
    vhost: vhost === '' ? '/' : vhost,
    username: isAnonymous ? 'guest' : decoded(username),
    password: isAnonymous ? 'guest' : decoded(password),
    frameBytesMax: Number(searchParams.get('frameMax') ?? FRAME_BYTES_MAX_DEFAULT),
  };
}

/**
 * What is wrong with the URL, as the end of a sentence about it, and without any of its parts: one
 * of them is a password.
 */
export function rabbitUrlProblem(url: unknown): string | undefined {
  const form = 'must be an amqp:// or amqps:// URL';
  if (typeof url !== 'string' || !URL.canParse(url)) return form;
  const { protocol, hostname, searchParams } = new URL(url);
  if ((protocol !== 'amqp:' && protocol !== 'amqps:') || hostname === '') return form;
  for (const name of ['heartbeat', 'channelMax', 'frameMax']) {
    const value = searchParams.get(name);
    if (value === null) continue;
    if (!/^\d{1,9}$/.test(value)) return `must give ${name} as a whole number`;
    const isTooSmall = name === 'frameMax' && value !== '0' && Number(value) < FRAME_BYTES_MAX_MIN;
    if (isTooSmall) return `must give frameMax as 0 or at least ${FRAME_BYTES_MAX_MIN} bytes`;
    if (name !== 'frameMax' && Number(value) > 65_535) return `must give ${name} as at most 65535`;
  }
  return undefined;
}

/**
 * As UTF-8. What is no UTF-8, or has a % that begins no escape, is taken letter by letter, as the
 * client library does: a password that works that way goes on working.
 */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text.replace(/%([0-9a-f]{2})/gi, (_, hex) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
  }
}
