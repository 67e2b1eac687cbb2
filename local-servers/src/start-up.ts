import { setTimeout as pause } from 'node:timers/promises';
import type { ServerProcess } from './lifeline.js';

/** Between two attempts to connect to a server that is starting. */
const POLL_MS = 100;

/** A collision of freely picked ports is rare; three in a row mean something else. */
const PORT_ATTEMPTS_MAX = 3;

/** What the servers print when somebody else holds their port. */
const PORT_TAKEN = /eaddrinuse|address already in use|Can't start server ?: Bind/i;

/** The server ended, or did not answer in time, before it was ready. */
export class StartFailure extends Error {
  readonly portTaken: boolean;

  constructor(message: string, log: string) {
    super(`${message}; it printed last:\n${log}`);
    this.name = 'StartFailure';
    this.portTaken = PORT_TAKEN.test(log);
  }
}

/**
 * Resolves when `connect` does. A process that is still starting refuses connections, so failures
 * are expected until `deadlineMs` is over.
 * @throws StartFailure when the process ends first or the time is up
 */
export async function waitUntilReady(
  server: ServerProcess,
  connect: () => Promise<void>,
  limits: { name: string; deadlineMs: number },
): Promise<void> {
  const startedAt = performance.now();
  for (;;) {
    let reason: unknown;
    try {
      await connect();
      // Checked after the answer: a dead server's port may be answered by somebody else's.
      if (server.running) return;
    } catch (error) {
      reason = error;
    }
    if (!server.running) {
      throw new StartFailure(`${limits.name} ended while it was starting`, server.logTail());
    }
    if (performance.now() - startedAt > limits.deadlineMs) {
      await server.kill();
      throw new StartFailure(
        `${limits.name} was not ready after ${limits.deadlineMs} ms (${reason})`,
        server.logTail(),
      );
    }
    await pause(POLL_MS);
  }
}

/** Repeats a start on other ports as long as the ones it picked turn out to be taken. */
export async function withFreshPorts<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start();
    } catch (error) {
      const again = error instanceof StartFailure && error.portTaken;
      if (!again || attempt === PORT_ATTEMPTS_MAX) throw error;
    }
  }
}
