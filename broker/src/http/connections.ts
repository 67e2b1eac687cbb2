import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';
import { LIMITS } from '@escrowmq/protocol';

export interface ConnectionLimits {
  headersTimeoutMs: number;
  requestTimeoutMs: number;
  keepAliveTimeoutMs: number;
  timeoutsCheckedEveryMs: number;
  connectionsMax: number;
  shutdownGraceMs: number;
}

/** Whoever is slower or more than this is cut off, so that the others are not. */
export const CONNECTION_LIMITS: ConnectionLimits = {
  /** A request's headers fit in one packet; only an attacker needs longer than this. */
  headersTimeoutMs: 10_000,
  /** The whole request, with its body: 8 MiB in 30 s is 2.2 Mbit/s. */
  requestTimeoutMs: 30_000,
  /** Above the 60 s that common proxies keep idle connections, so that they close first. */
  keepAliveTimeoutMs: 65_000,
  /** How late a timeout above may be; Node's default of 30 s would quadruple the first. */
  timeoutsCheckedEveryMs: 1_000,
  /** Each costs a file handle; SDKs need two, and long polls one each. */
  connectionsMax: 10_000,
  /** How long a shutdown waits for requests that have only arrived in part. */
  shutdownGraceMs: 2_000,
};

/** Node's default, named: all of the headers and the URL of one request. */
export const HEADER_BYTES_MAX = 16 * 1024;

/** Nine characters for a character of three UTF-8 bytes, percent-encoded. */
export const PARAM_CHARS_MAX = LIMITS.businessKeyCharsMax * 9;

/**
 * Ends connections that a shutdown would wait for in vain. `http.Server.close()` ends those that
 * are idle after an answer, but waits for ever for one that has never sent a byte or stopped in
 * the middle of a request, because it also stops checking the timeouts [measured on Node 20].
 */
export interface OpenConnections {
  /** At once those never used, after a grace those whose request has not arrived whole. */
  endUnanswerable(graceMs: number): void;
  /** Nothing is open any more: no grace is left to wait for. */
  closed(): void;
}

/** @param connectionsMax of all addresses that it listens on; one more is cut off at once */
export function trackConnections(server: Server, connectionsMax: number): OpenConnections {
  /** The request that a connection is busy with. */
  const current = new Map<Socket, IncomingMessage | undefined>();
  let grace: NodeJS.Timeout | undefined;
  server.on('connection', (socket) => {
    if (current.size >= connectionsMax) {
      socket.destroy();
      return;
    }
    current.set(socket, undefined);
    socket.once('close', () => current.delete(socket));
  });
  server.on('request', (request, response) => {
    const { socket } = request;
    // Without a connection of ours when a test injects it.
    if (!current.has(socket)) return;
    current.set(socket, request);
    response.once('close', () => {
      if (current.get(socket) === request) current.set(socket, undefined);
    });
  });
  return {
    endUnanswerable(graceMs) {
      for (const socket of current.keys()) if (socket.bytesRead === 0) socket.destroy();
      grace = setTimeout(() => {
        for (const [socket, request] of current) if (request?.complete !== true) socket.destroy();
      }, graceMs);
    },
    closed() {
      clearTimeout(grace);
    },
  };
}

/** As much as anybody may send at all; the rest of a refused body is read up to here. */
const DRAINED_BYTES_MAX = LIMITS.batchBytesMax;

/**
 * Reads and drops the rest of a body that was refused before its end, and cuts the connection
 * when there is more of it than anybody could mean. Hanging up at once would be shorter, but a
 * caller that is still sending then gets a reset and never sees why [measured].
 */
export function drainRefusedBody(request: IncomingMessage): void {
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > DRAINED_BYTES_MAX) request.destroy();
  });
  request.resume();
}
