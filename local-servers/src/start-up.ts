import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { freePorts, isFree } from './free-port.js';
import type { ServerProcess } from './lifeline.js';

/** Between two attempts to connect to a server that is starting. */
const POLL_MS = 100;

/** A server that accepts a connection while it is still starting may leave it without an answer. */
const ATTEMPT_TIMEOUT_MS = 10_000;

/** A collision of freely picked ports is rare; three in a row mean something else. */
const PORT_ATTEMPTS_MAX = 3;

/**
 * Resolves when `connect` does. A process that is still starting refuses connections, so failures
 * are expected until `deadlineMs` is over. `connect` must make sure that it reached this process
 * and not somebody else's on the same port.
 * @throws Error when the process ends first or the time is up; it carries the end of the log
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
      await Promise.race([connect(), noAnswer()]);
      return;
    } catch (error) {
      reason = error;
    }
    if (!server.running) {
      throw new Error(
        `${limits.name} ended while it was starting; it printed last:\n${server.logTail()}`,
      );
    }
    if (performance.now() - startedAt > limits.deadlineMs) {
      await server.kill();
      throw new Error(
        `${limits.name} was not ready after ${limits.deadlineMs} ms (${reason}); it printed last:
${server.logTail()}`,
      );
    }
    await pause(POLL_MS);
  }
}

async function noAnswer(): Promise<never> {
  await once(AbortSignal.timeout(ATTEMPT_TIMEOUT_MS), 'abort');
  throw new Error(`no answer within ${ATTEMPT_TIMEOUT_MS} ms`);
}

/**
 * Picks `count` free ports and starts something on them; picks again when the start fails and one
 * of them turns out to be somebody else's by then. Asking the ports is surer than searching a log
 * for the words in which each version of each server complains.
 */
export async function onFreePorts<T>(
  count: number,
  start: (ports: number[]) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const ports = await freePorts(count);
    try {
      return await start(ports);
    } catch (error) {
      const free = await Promise.all(ports.map(isFree));
      if (free.every(Boolean) || attempt === PORT_ATTEMPTS_MAX) throw error;
    }
  }
}
