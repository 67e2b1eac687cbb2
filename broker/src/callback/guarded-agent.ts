import type { LookupAddress } from 'node:dns';
import { lookup as systemLookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import { Agent, buildConnector, type Dispatcher } from 'undici';
import type { CallbackPolicy } from './callback-policy.js';

/** Resolves a host name to all of its addresses. */
export type Resolve = (
  host: string,
  done: (error: Error | null, addresses: LookupAddress[]) => void,
) => void;

const systemResolve: Resolve = (host, done) => systemLookup(host, { all: true }, done);

/** An address that the callback policy refuses; the message is meant for the operator. */
export class AddressRefused extends Error {
  override readonly name = 'AddressRefused';
}

/**
 * Longer than any endpoint should take to accept a connection. The limit of a call ends the wait for
 * its answer but not the attempt to connect, which this one ends.
 */
const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Common servers drop idle connections after 5 s, and a call sent into that moment gets no answer.
 * One second still spares the handshakes when many checks are due at once.
 */
const KEEP_ALIVE_MS = 1_000;

export interface GuardedAgent {
  /** For undici's `request`. */
  dispatcher: Dispatcher;
  /** Ends every call and every connection, the one that is not there yet included. */
  close(): Promise<void>;
}

/** An HTTP client of which every connection, to a name or to a literal address, obeys the policy. */
export function createGuardedAgent(policy: CallbackPolicy, resolve = systemResolve): GuardedAgent {
  const closed = new AbortController();
  const agent = new Agent({
    connect: guardedConnector(policy, resolve, closed.signal),
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    // The caller's signal limits the whole call, to the millisecond; these run on a coarse clock.
    headersTimeout: 0,
    bodyTimeout: 0,
  });
  return {
    dispatcher: agent,
    async close() {
      await agent.destroy();
      // undici destroys what is connected. A host that drops packets, or a resolver that hangs, would
      // keep its socket, and with it the process, for what is left of CONNECT_TIMEOUT_MS.
      closed.abort();
    },
  };
}

function guardedConnector(
  policy: CallbackPolicy,
  resolve: Resolve,
  closed: AbortSignal,
): buildConnector.connector {
  return (target, done) => {
    const url = urlOf(target);
    const connect = buildConnector({
      timeout: CONNECT_TIMEOUT_MS,
      // Each connection has a connector of its own, so there is no later one to resume a session.
      maxCachedSessions: 0,
      lookup: guardedLookup(url, policy, resolve),
      signal: closed,
    });
    connect(target, (...[error, socket]) => {
      if (error !== null) return done(error, null);
      const problem = policy.addressProblem(url, socket.remoteAddress ?? '');
      if (problem === undefined) return done(null, socket);
      const refused = new AddressRefused(problem);
      socket.destroy(refused);
      done(refused, null);
    });
  };
}

/** Refuses a name of which any address is refused: which of them gets used is up to the system. */
function guardedLookup(url: URL, policy: CallbackPolicy, resolve: Resolve): LookupFunction {
  return (host, options, done) => {
    resolve(host, (error, addresses) => {
      if (error !== null) return done(error, []);
      for (const { address } of addresses) {
        const problem = policy.addressProblem(url, address);
        if (problem !== undefined) return done(new AddressRefused(problem), []);
      }
      const first = addresses[0];
      if (first === undefined) return done(new AddressRefused(`${host} has no address`), []);
      if (options.all === true) return done(null, addresses);
      return done(null, first.address, first.family);
    });
  };
}

function urlOf(target: buildConnector.Options): URL {
  const host = target.hostname.includes(':') ? `[${target.hostname}]` : target.hostname;
  return new URL(`${target.protocol}//${host}:${target.port}`);
}
