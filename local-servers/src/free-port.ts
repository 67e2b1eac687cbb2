import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below the range the kernel takes a client's own port from (from 32768 on Linux, 49152 on macOS).
 * A port from within it may be taken by any outgoing connection while a server restarts; worse, a
 * client that keeps trying a closed port of that range may be given the same port as its own and
 * connect to itself.
 */
const PORT_MIN = 10_240;
const PORT_MAX = 32_767;

/** Ports in use are few: more failures than this mean that something else is wrong. */
const ATTEMPTS_MAX = 100;

/**
 * `count` different TCP ports that are free on loopback now. Another process may take one before
 * the caller does: see `onFreePorts`.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  for (let attempt = 0; ports.size < count; attempt++) {
    if (attempt === ATTEMPTS_MAX) {
      throw new Error(`no free TCP port between ${PORT_MIN} and ${PORT_MAX} on 127.0.0.1`);
    }
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN + 1));
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

/** Whether nobody listens on that TCP port of loopback. */
export async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
