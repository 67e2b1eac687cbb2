import querystring from 'node:querystring';
import { type RabbitLogin, rabbitLoginOf, rabbitUrlProblem } from '@escrowmq/protocol';

/** Where RabbitMQ is, with the password kept out of everything that people or logs may see. */
export interface ServerUrl {
  /** Host, port and virtual host: what may be shown. */
  shown: string;
  /** Name and password as UTF-8, and where to. */
  login: RabbitLogin;
  /** As it stands in the URL. */
  password: string;
  /** The full URL for the client library; a heartbeat in the configured URL wins. */
  withHeartbeat(seconds: number): string;
}

/**
 * @param url `amqp://user:password@host:port/vhost` or `amqps://…`
 * @throws Error, without the URL in it, when it is not one of these
 */
export function parseServerUrl(url: string): ServerUrl {
  // The error of `new URL` would carry the whole input, and with it the password.
  const problem = rabbitUrlProblem(url);
  if (problem !== undefined) throw new Error(`the URL of RabbitMQ ${problem}`);
  const parsed = new URL(url);
  return {
    shown: `${parsed.host}${parsed.pathname}`,
    login: rabbitLoginOf(url),
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
  const { password, login } = server;
  const secrets = [password, querystring.unescape(password), login.password];
  const text = `${original.message} ${original.stack ?? ''}`;
  if (!secrets.some((secret) => text.includes(secret))) return original;
  let message = original.message;
  for (const secret of secrets) message = message.replaceAll(secret, '***');
  return new Error(message);
}
