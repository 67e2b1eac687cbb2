import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';

/*
 * Stands between clients and a MySQL server and answers chosen statements itself, with an error of a
 * server that there is none of here: a cluster without its majority, a replica, a full disk.
 */
export interface MysqlErrorProxy {
  /** The server's URL with the proxy in the server's place. */
  url: string;
  /** Connections of clients that have ended so far. */
  ended(): number;
  /** Statements with this text get this error from now on, `times` of them. @default all */
  fail(statement: RegExp, errno: number, options?: { times?: number; message?: string }): void;
  /** Statements that got an error since `fail`. */
  failed(): number;
  heal(): void;
  close(): Promise<void>;
}

const COM_QUERY = 0x03;

function errorPacket(sequence: number, errno: number, message: string): Buffer {
  const body = Buffer.concat([
    Buffer.from([0xff, errno & 0xff, errno >> 8]),
    Buffer.from(`#HY000${message}`),
  ]);
  const header = Buffer.from([body.length & 0xff, body.length >> 8, 0, sequence]);
  return Buffer.concat([header, body]);
}

/** That there are no query attributes, between the command and its text; of MySQL from 8.0.23 on. */
const NO_ATTRIBUTES = '\0\x01';

function textOf(statement: Buffer): string {
  const text = statement.toString('latin1', 5);
  return text.startsWith(NO_ATTRIBUTES) ? text.slice(NO_ATTRIBUTES.length) : text;
}

/** Cuts what came in so far into whole packets. */
function packetsOf(bytes: Buffer): { packets: Buffer[]; rest: Buffer } {
  const packets: Buffer[] = [];
  let at = 0;
  while (bytes.length - at >= 4) {
    const length = 4 + bytes.readUIntLE(at, 3);
    if (bytes.length - at < length) break;
    packets.push(bytes.subarray(at, at + length));
    at += length;
  }
  return { packets, rest: bytes.subarray(at) };
}

export async function startMysqlErrorProxy(serverUrl: string): Promise<MysqlErrorProxy> {
  const { hostname, port } = new URL(serverUrl);
  let made = 0;
  const sockets = new Set<Socket>();
  let fault: { statement: RegExp; errno: number; message: string; left: number } | undefined;
  let failed = 0;

  /** The fault for a packet, if it is a statement that shall fail. */
  function faultFor(packet: Buffer) {
    // A command begins a new count of packets; the handshake's have higher numbers.
    const isStatement = packet[3] === 0 && packet[4] === COM_QUERY;
    if (fault === undefined || fault.left === 0 || !isStatement) return undefined;
    return fault.statement.test(textOf(packet)) ? fault : undefined;
  }

  const listener = net.createServer((client) => {
    made += 1;
    sockets.add(client);
    const server = net.connect(Number(port), hostname);
    let waiting = Buffer.alloc(0);
    client.on('data', (chunk) => {
      const { packets, rest } = packetsOf(Buffer.concat([waiting, chunk]));
      waiting = Buffer.from(rest);
      for (const packet of packets) {
        const hit = faultFor(packet);
        if (hit === undefined) server.write(packet);
        else {
          hit.left -= 1;
          failed += 1;
          client.write(errorPacket(1, hit.errno, hit.message));
        }
      }
    });
    server.pipe(client);
    client.on('close', () => {
      sockets.delete(client);
      server.destroy();
    });
    server.on('close', () => client.destroy());
    client.on('error', () => client.destroy());
    server.on('error', () => server.destroy());
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const url = new URL(serverUrl);
  url.hostname = '127.0.0.1';
  url.port = String((listener.address() as AddressInfo).port);

  return {
    url: url.href,
    ended: () => made - sockets.size,
    fail(statement, errno, { times = Number.POSITIVE_INFINITY, message = `error ${errno}` } = {}) {
      fault = { statement, errno, message, left: times };
      failed = 0;
    },
    failed: () => failed,
    heal() {
      fault = undefined;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, 'close');
    },
  };
}
