import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';

/** The machine lacks this family of addresses, or has it switched off: then nobody comes that way. */
const NO_SUCH_ADDRESS = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL']);

/**
 * Listens; on `localhost` at all of its addresses, for callers take either family. Whatever comes in
 * by another address is a connection of the one HTTP server: its time limits, its count of connections
 * and its shutdown hold for all. (Fastify's own further servers had none of these: one silent
 * connection on ::1 kept a stopping broker for its whole time limit.)
 *
 * @returns where it listens first, such as http://127.0.0.1:7171
 */
export async function listenOn(
  server: FastifyInstance,
  { host, port }: { host: string; port: number },
): Promise<string> {
  const [first = host, ...others] = await addressesOf(host);
  const doors: net.Server[] = [];
  let closed: Promise<unknown> = Promise.resolve();
  server.addHook('preClose', (done) => {
    closed = Promise.all(doors.map(closing));
    done();
  });
  server.addHook('onClose', async () => {
    await closed;
  });
  const address = await server.listen({ host: first, port });
  const bound = (server.server.address() as AddressInfo).port;
  for (const other of others) {
    const door = await furtherDoor(server, { host: other, port: bound });
    if (door !== undefined) doors.push(door);
  }
  return address;
}

/** IPv4 first: it is what logs and callers show. */
async function addressesOf(host: string): Promise<string[]> {
  if (host !== 'localhost') return [host];
  const found = await lookup(host, { all: true });
  const ordered = found.toSorted((a, b) => a.family - b.family).map(({ address }) => address);
  return [...new Set([...ordered, '::1'])];
}

async function furtherDoor(
  server: FastifyInstance,
  at: { host: string; port: number },
): Promise<net.Server | undefined> {
  // As an HTTP server makes them.
  const door = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    server.server.emit('connection', socket);
  });
  door.listen(at);
  try {
    await once(door, 'listening');
    return door;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (NO_SUCH_ADDRESS.has(code)) return undefined;
    await server.close();
    throw error;
  }
}

/** Takes no more; resolves when its last connection has ended. */
const closing = (door: net.Server): Promise<void> =>
  new Promise((resolve) => door.close(() => resolve()));
