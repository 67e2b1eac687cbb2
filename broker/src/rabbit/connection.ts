import { connect as connectTcp, isIP } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { explainRabbitFailure, type RabbitLogin } from '@escrowmq/protocol';
import { type ChannelModel, connect, credentials } from 'amqplib';
import type { Observer } from '../domain/ports.js';
import { type ServerUrl, withoutPassword } from './server-url.js';

/*
 * One connection to RabbitMQ, kept up for as long as the broker runs.
 *
 * This is our own loop and not amqplib's `recovery`, because that one recovers the connection only:
 * channels, consumers and unconfirmed messages are ours to rebuild either way, and what it leaves
 * is the small part. In return the loop here backs off after a connection that came up and fell
 * over at once, and can be ended at any point, also in the middle of a handshake.
 */

/**
 * Both ends give up on a silent peer after two to three intervals: 10 to 15 s, about the time limit
 * of one publish. RabbitMQ's own 60 s would leave a dead peer unseen for minutes.
 */
const HEARTBEAT_S = 5;

/** TCP and AMQP handshakes take milliseconds; a server that starts accepts and stays silent. */
const HANDSHAKE_LIMIT_MS = 10_000;

/** RabbitMQ takes 5 to 8 s to start: the first attempts are quick, then one every few seconds. */
const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 5_000;

/** A connection that lived for this long was a good one: the next loss starts a new back-off. */
const GOOD_AFTER_MS = 30_000;

/** What its user learns about a connection: `connected` and `disconnected` by turns, in this order. */
export interface ConnectionListener {
  connected(model: ChannelModel): void;
  /** Channels of the lost connection have emitted `close` before. */
  disconnected(reason: string): void;
  /** RabbitMQ has stopped reading what this connection publishes, for want of memory or disk. */
  blocked(reason: string): void;
  unblocked(): void;
}

export interface KeptConnection {
  /** Why there is none now, in words without the password. */
  readonly problem: string | undefined;
  /**
   * Ends the connection and the attempts to make one. Bounded: a server that does not answer the
   * closing handshake within `limitMs` is hung up on.
   */
  close(limitMs: number): Promise<void>;
}

export interface ConnectionOptions {
  server: ServerUrl;
  /** Shown in RabbitMQ's list of connections. */
  name: string;
  observer: Pick<Observer, 'failed' | 'info' | 'recovered'>;
}

/** Connects, and connects again after every loss. Never fails: what goes wrong is told to the observer. */
export function keepConnected(
  options: ConnectionOptions,
  listener: ConnectionListener,
): KeptConnection {
  const { server, name, observer } = options;
  const connecting = `connecting to RabbitMQ at ${server.shown}, which will be tried again`;
  const ended = new AbortController();
  let closing = false;
  let current: ChannelModel | undefined;
  let problem: string | undefined = 'it is being connected to';
  let hangUp = new AbortController();

  async function run(): Promise<void> {
    let failures = 0;
    while (!closing) {
      const startedAt = performance.now();
      await connectOnce();
      failures = performance.now() - startedAt >= GOOD_AFTER_MS ? 0 : failures + 1;
      if (!closing) await sleepUntilNext(failures);
    }
  }

  /** From one attempt to connect to the end of what came of it. */
  async function connectOnce(): Promise<void> {
    hangUp = new AbortController();
    try {
      current = await open(hangUp.signal);
    } catch (error) {
      if (closing) return;
      const explained = withoutPassword(await inWords(error, server.login), server);
      problem = explained.message;
      observer.failed(connecting, explained);
      return;
    }
    problem = undefined;
    observer.recovered(connecting);
    const end = watch(current);
    if (closing) hangUp.abort();
    observer.info('connected to RabbitMQ', { server: server.shown, connection: name });
    listener.connected(current);
    const reason = withoutPassword(await end, server);
    current = undefined;
    problem = reason.message;
    if (!closing) observer.failed(`the connection ${name} to RabbitMQ`, reason);
    listener.disconnected(reason.message);
  }

  function open(signal: AbortSignal): Promise<ChannelModel> {
    const options = {
      noDelay: true,
      timeout: HANDSHAKE_LIMIT_MS,
      clientProperties: { connection_name: name },
      // Ahead of those in the URL, which the library would not read as UTF-8.
      credentials: credentials.plain(server.login.username, server.login.password),
      // Goes on to the socket: aborting it is the one way to hang up on a server that is silent.
      signal,
    };
    return connect(server.withHeartbeat(HEARTBEAT_S), options);
  }

  /** Listens for everything; resolves with the reason when the connection is gone. */
  function watch(model: ChannelModel): Promise<unknown> {
    let reason: unknown;
    // Without a listener for `error` Node ends the process. `close` always follows it.
    model.on('error', (error) => {
      reason = error;
    });
    // Without one for `handler-error` a throwing listener tears the connection down.
    model.on('handler-error', (error) => {
      observer.failed('handling an event of RabbitMQ', withoutPassword(error, server));
    });
    model.on('blocked', (why) => listener.blocked(why));
    model.on('unblocked', () => listener.unblocked());
    return new Promise((resolve) => {
      model.on('close', (error) => resolve(reason ?? error ?? new Error('the connection ended')));
    });
  }

  async function sleepUntilNext(failures: number): Promise<void> {
    const longest = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failures, 10));
    // Half of it at random: instances that lost the same server do not come back in step.
    const delayMs = longest / 2 + Math.random() * (longest / 2);
    try {
      await pause(delayMs, undefined, { signal: ended.signal });
    } catch {
      // Aborted by close(), which the loop sees by itself.
    }
  }

  const running = run();

  return {
    get problem() {
      return problem;
    },
    async close(limitMs) {
      closing = true;
      ended.abort();
      if (current === undefined) hangUp.abort();
      // Rejects only when the connection has ended already, which is what it is called for.
      else current.close().catch(() => undefined);
      const hangUpTimer = setTimeout(() => hangUp.abort(), limitMs);
      await running;
      clearTimeout(hangUpTimer);
    },
  };
}

/**
 * The error of an attempt to connect, in words that name what was refused: the client library says
 * "Expected ConnectionOpenOk" of a virtual host that is missing.
 */
async function inWords(error: unknown, login: RabbitLogin): Promise<unknown> {
  const refusal = await explainRabbitFailure(error, login, openSocket);
  return refusal === undefined ? error : new Error(refusal.message, { cause: error });
}

/** As the client library connects. */
function openSocket({ tls, hostname: host, port }: RabbitLogin) {
  if (!tls) return connectTcp({ host, port });
  return connectTls({ host, port, ...(isIP(host) === 0 ? { servername: host } : {}) });
}
