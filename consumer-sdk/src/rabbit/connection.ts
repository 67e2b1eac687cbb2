import { connect as connectTcp, isIP } from 'node:net';
import { connect as connectTls } from 'node:tls';
import {
  EscrowError,
  explainRabbitFailure,
  isEscrowError,
  type RabbitLogin,
  rabbitLoginOf,
} from '@escrowmq/protocol';
import { type ChannelModel, connect, credentials } from 'amqplib';
import { causedBy, causeOf } from '../cause.js';
import type { ConnectionName, Log } from '../events.js';
import { type KeptOpen, keepOpen } from './keep-open.js';

/**
 * A consumer has two connections, one to consume and one to publish retry copies, dead letters and
 * receipts. In a memory or disk alarm RabbitMQ stops reading from connections that publish; on a
 * shared one the acknowledgements stand still as well (tried: no second message arrived), and with
 * them the emptying of the queues that the alarm waits for.
 */

/** TCP and the AMQP handshake together. */
const CONNECT_TIMEOUT_MS = 10_000;
/** RabbitMQ proposes 60 s, which finds a dead peer after two minutes. */
const HEARTBEAT_SECONDS = 10;
/** Closing says goodbye; a RabbitMQ that does not answer is not waited for. */
const CLOSE_TIMEOUT_MS = 5_000;

/** The name shows in RabbitMQ's management. */
export function keepConnection(
  rabbitmq: string,
  name: ConnectionName,
  log: Log,
): KeptOpen<ChannelModel> {
  const url = new URL(rabbitmq);
  const login = rabbitLoginOf(rabbitmq);
  if (!url.searchParams.has('heartbeat')) {
    url.searchParams.set('heartbeat', String(HEARTBEAT_SECONDS));
  }
  return keepOpen({
    what: `the ${name} connection to RabbitMQ at ${url.host}`,
    async open() {
      const model = await connect(url.href, {
        noDelay: true,
        timeout: CONNECT_TIMEOUT_MS,
        clientProperties: { connection_name: `escrowmq consumer (${name})` },
        // Ahead of those in the URL, which the library would not read as UTF-8.
        credentials: credentials.plain(login.username, login.password),
      }).catch(async (error: unknown) => {
        throw await explained(error, login);
      });
      let failure: unknown;
      const lost = new Promise<unknown>((resolve) => {
        // Without a listener for `error` the process would end.
        model.on('error', (error) => {
          failure = error;
        });
        model.on('close', (error) => resolve(failure ?? error ?? new Error('connection closed')));
      });
      model.on('blocked', (reason) =>
        log({ event: 'blocked', connection: name, cause: causeOf(reason) }),
      );
      model.on('unblocked', () => log({ event: 'unblocked', connection: name }));
      return { value: model, lost, close: () => closed(model.close(), lost) };
    },
    onOpen: () => log({ event: 'connected', connection: name }),
    onLost: (cause, retryInMs) =>
      log({ event: 'connectionLost', connection: name, retryInMs, ...causedBy(cause) }),
    // What no later attempt can change, as long as nobody changes a setting.
    isFatal: isEscrowError,
  });
}

/**
 * Waits for a goodbye. amqplib never answers it when the other side dies meanwhile, and refuses it
 * when the thing is closed already; both are told by `lost`.
 */
export async function closed(goodbye: Promise<void>, lost: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
  });
  await Promise.race([goodbye.catch(() => undefined), lost, tooLong]);
  clearTimeout(timer);
}

/** The error of an attempt to connect, with the words of RabbitMQ: fatal where it is ours. */
async function explained(error: unknown, login: RabbitLogin): Promise<unknown> {
  const refusal = await explainRabbitFailure(error, login, openSocket);
  if (refusal === undefined) return error;
  const { message, heals } = refusal;
  if (heals) return new Error(message, { cause: error });
  return new EscrowError('INVALID_CONFIGURATION', message, { cause: error });
}

/** As the client library connects. */
function openSocket({ tls, hostname: host, port }: RabbitLogin) {
  if (!tls) return connectTcp({ host, port });
  return connectTls({ host, port, ...(isIP(host) === 0 ? { servername: host } : {}) });
}

/** What a caller of `subscribe` is told when RabbitMQ could not be reached or refused the login. */
export function unreachable(error: unknown, rabbitmq: string): EscrowError {
  const reason = error instanceof Error && error.cause !== undefined ? error.cause : error;
  for (const refused of [error, reason]) if (isEscrowError(refused)) return refused;
  return new EscrowError(
    'BROKER_UNREACHABLE',
    `RabbitMQ at ${new URL(rabbitmq).host} could not be reached: ${causeOf(reason)}`,
    { cause: error },
  );
}
