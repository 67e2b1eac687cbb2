import { createHandshake, type HandshakeAnswer } from './rabbit-handshake.js';
import type { RabbitLogin } from './rabbit-login.js';

/** Why there is no connection to RabbitMQ, in words that name host, virtual host and user. */
export interface RabbitRefusal {
  /** A sentence without the password. */
  message: string;
  /**
   * Whether trying again may help although nobody changes a setting: a server that starts, a limit
   * of connections. Else somebody has to act, and whoever just begins should be told at once.
   */
  heals: boolean;
}

/** As much of a socket of `node:net` or `node:tls` as one handshake takes. */
export interface HandshakeSocket {
  /** Listens to what comes, to an error, and to the end. */
  on(event: 'data', listener: (bytes: Uint8Array) => void): unknown;
  /** Listens to what comes, to an error, and to the end. */
  on(event: 'error', listener: (error: Error) => void): unknown;
  /** Listens to what comes, to an error, and to the end. */
  on(event: 'close', listener: () => void): unknown;
  /** Sends bytes. */
  write(bytes: Uint8Array): unknown;
  /** Closes it at once. */
  destroy(): unknown;
}

/** A handshake takes milliseconds; RabbitMQ that is starting accepts and stays silent. */
const HANDSHAKE_LIMIT_MS = 5_000;

/**
 * What a failed attempt to connect means. Where the error does not say it, RabbitMQ is asked once
 * more, by a handshake on a connection of its own, which is closed at once.
 *
 * @param error of the client library's `connect`
 * @param openSocket connects to `hostname` and `port`, with TLS where `tls` says so
 * @returns `undefined` where nothing is to be said beyond the error: nobody answers there
 */
export async function explainRabbitFailure(
  error: unknown,
  login: RabbitLogin,
  openSocket: (login: RabbitLogin) => HandshakeSocket,
): Promise<RabbitRefusal | undefined> {
  const { code, message } = partsOf(error);
  const ofTls = code === undefined ? undefined : tlsRefusal(code, message, login);
  if (ofTls !== undefined) return ofTls;
  if (/\b403\b.*ACCESS.REFUSED/.test(message)) return credentialsRefused(login);
  // What the system says of a connection it could not make says enough.
  const isTold = (code !== undefined && code !== 'ECONNRESET') || /ETIMEDOUT/.test(message);
  if (isTold) return undefined;
  return refusalOf(await askAgain(login, openSocket), login);
}

/** Of whatever was thrown: an error of another realm is no `Error` of this one. */
function partsOf(error: unknown): { code: string | undefined; message: string } {
  if (typeof error !== 'object' || error === null)
    return { code: undefined, message: String(error) };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  return { code, message: 'message' in error ? String(error.message) : String(error) };
}

/** Never rejects. */
function askAgain(
  login: RabbitLogin,
  openSocket: (login: RabbitLogin) => HandshakeSocket,
): Promise<HandshakeAnswer> {
  return new Promise((resolve) => {
    const handshake = createHandshake(login);
    let socket: HandshakeSocket | undefined;
    const answer = (given: HandshakeAnswer) => {
      clearTimeout(timer);
      socket?.destroy();
      resolve(given);
    };
    const timer = setTimeout(
      () => answer(handshake.end(`no answer within ${HANDSHAKE_LIMIT_MS} ms`)),
      HANDSHAKE_LIMIT_MS,
    );
    try {
      const opened = openSocket(login);
      socket = opened;
      opened.on('error', (error) => answer(handshake.end(error.message)));
      opened.on('close', () => answer(handshake.end('the connection was closed')));
      opened.on('data', (bytes) => {
        const next = handshake.receive(bytes);
        for (const piece of next.send) opened.write(piece);
        if (next.answer !== undefined) answer(next.answer);
      });
      // Before it is connected, a socket keeps what is written.
      opened.write(handshake.hello);
    } catch (error) {
      answer(handshake.end(partsOf(error).message));
    }
  });
}

/** What the answer to a handshake means to whoever set the URL. */
export function refusalOf(answer: HandshakeAnswer, login: RabbitLogin): RabbitRefusal {
  const { shown } = login;
  switch (answer.kind) {
    case 'accepted':
      return { message: `RabbitMQ at ${shown} refused a login and took the next one`, heals: true };
    case 'closed':
      return answer.after === 'login' ? loginClosed(answer, login) : openClosed(answer, login);
    case 'foreign':
      return { message: foreignMessage(answer, login), heals: false };
    case 'silent':
      return { message: silentMessage(answer, login), heals: true };
  }
}

type Closed = Extract<HandshakeAnswer, { kind: 'closed' }>;

/** AMQP reply codes for what is not allowed: RabbitMQ has used both for a virtual host. */
const REFUSALS: readonly number[] = [403, 530];

function loginClosed({ code, text }: Closed, login: RabbitLogin): RabbitRefusal {
  if (REFUSALS.includes(code) && !isPassing(text)) return credentialsRefused(login);
  return {
    message: `RabbitMQ at ${login.shown} refused user ${quoted(login.username)}: ${code} ${text}`,
    heals: true,
  };
}

function openClosed({ code, text }: Closed, login: RabbitLogin): RabbitRefusal {
  const { shown, vhost, username } = login;
  const said = `${code} ${text}`;
  const heals = !REFUSALS.includes(code) || isPassing(text);
  if (!heals && /\bnot found\b/.test(text)) {
    return {
      message:
        `RabbitMQ at ${shown} has no virtual host ${quoted(vhost)}, which user ` +
        `${quoted(username)} asked for (${said}): create it, or correct what follows the host in the URL`,
      heals,
    };
  }
  if (!heals && /access to vhost/.test(text)) {
    return {
      message:
        `RabbitMQ at ${shown} refuses user ${quoted(username)} the virtual host ` +
        `${quoted(vhost)} (${said}): give the user permissions on it`,
      heals,
    };
  }
  return {
    message:
      `RabbitMQ at ${shown} closed the connection of user ${quoted(username)} to the virtual ` +
      `host ${quoted(vhost)}: ${said}`,
    heals,
  };
}

/** A limit of connections, or a virtual host that is down: said with the codes of a refusal. */
const isPassing = (text: string): boolean => /limit \([^)]*\) is reached|is down$/.test(text);

function credentialsRefused({ shown, username }: RabbitLogin): RabbitRefusal {
  const guest = username === 'guest' ? '; guest may come from its own machine only' : '';
  return {
    message:
      `RabbitMQ at ${shown} refused the login of user ${quoted(username)}: the user or the ` +
      `password is wrong${guest}`,
    heals: false,
  };
}

function foreignMessage(
  { what, said }: Extract<HandshakeAnswer, { kind: 'foreign' }>,
  { shown, tls }: RabbitLogin,
): string {
  const other = {
    http: 'a web server answers',
    tls: 'a server answers that speaks TLS',
    amqp: 'a server answers that speaks another version of AMQP than 0-9-1',
    other: 'something answers that is no RabbitMQ',
  }[what];
  if (what === 'tls' && !tls) return `at ${shown} ${other}: use amqps://`;
  return (
    `at ${shown} ${other} (it says ${quoted(said)}): RabbitMQ's port for AMQP 0-9-1 is 5672 by ` +
    'default, and 5671 with TLS'
  );
}

function silentMessage(
  { after, reason }: Extract<HandshakeAnswer, { kind: 'silent' }>,
  { shown, tls, username, vhost }: RabbitLogin,
): string {
  const step = {
    hello: `the greeting${tls ? '' : ' (if its port speaks TLS, use amqps://)'}`,
    login: `the login of user ${quoted(username)}: the user or the password may be wrong`,
    open: `user ${quoted(username)} asked for virtual host ${quoted(vhost)}`,
  }[after];
  return `RabbitMQ at ${shown} said nothing after ${step}: ${reason}`;
}

/** OpenSSL's words for an answer that is no TLS; older versions of Node have them in the text. */
const NO_TLS_THERE = /WRONG.VERSION.NUMBER|PACKET.LENGTH.TOO.LONG|HTTP.REQUEST/i;

/** What OpenSSL and Node call a certificate that is not to be trusted. */
const CERTIFICATE_CODE = /CERT|SIGNATURE|CRL|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH/;

function tlsRefusal(code: string, text: string, login: RabbitLogin): RabbitRefusal | undefined {
  const { shown } = login;
  if (NO_TLS_THERE.test(`${code} ${text}`)) {
    return {
      message: `at ${shown} nobody speaks TLS (${code}): use amqp://, or the port for amqps://, 5671 by default`,
      heals: false,
    };
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) {
    return { message: `TLS with ${shown} failed: ${code} ${text.trim()}`, heals: false };
  }
  if (CERTIFICATE_CODE.test(code)) {
    return {
      message:
        `the certificate of ${shown} is not trusted: ${code} ${text}. Node trusts the file in ` +
        'NODE_EXTRA_CA_CERTS beside its own list',
      heals: false,
    };
  }
  return undefined;
}

const quoted = (text: string): string => JSON.stringify(text);
