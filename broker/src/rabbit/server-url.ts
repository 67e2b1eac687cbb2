import querystring from 'node:querystring';

/** Where RabbitMQ is, with the password kept out of everything that people or logs may see. */
export interface ServerUrl {
  /** Host, port and virtual host: what may be shown. */
  shown: string;
  password: string;
  /** The full URL for the client library; a heartbeat in the configured URL wins. */
  withHeartbeat(seconds: number): string;
}

/**
 * @param url `amqp://user:password@host:port/vhost` or `amqps://…`
 * @throws Error, without the URL in it, when it is not one of these
 */
export function parseServerUrl(url: string): ServerUrl {
  // The error of `new URL` carries the whole input, and with it the password.
  if (!URL.canParse(url)) throw new Error('the URL of RabbitMQ is not a URL');
  const parsed = new URL(url);
  if (parsed.protocol !== 'amqp:' && parsed.protocol !== 'amqps:') {
    throw new Error(
      `the URL of RabbitMQ must begin with amqp:// or amqps://, not ${parsed.protocol}//`,
    );
  }
  return {
    shown: `${parsed.host}${parsed.pathname}`,
    password: parsed.password,
    withHeartbeat(seconds) {
      const withHeartbeat = new URL(parsed);
      if (!parsed.searchParams.has('heartbeat')) {
        withHeartbeat.searchParams.set('heartbeat', String(seconds));
      }
      return withHeartbeat.href;
    },
  };
}

/** The error itself, or a copy of its message alone when the password stands anywhere in it. */
export function withoutPassword(error: unknown, server: ServerUrl): Error {
  const original = error instanceof Error ? error : new Error(String(error));
  if (server.password === '') return original;
  const secrets = [server.password, querystring.unescape(server.password)];
  const text = `${original.message} ${original.stack ?? ''}`;
  if (!secrets.some((secret) => text.includes(secret))) return original;
  let message = original.message;
  for (const secret of secrets) message = message.replaceAll(secret, '***');
  return new Error(message);
}
