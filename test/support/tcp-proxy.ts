import net, { type AddressInfo, type Socket } from 'node:net';

/**
 * Stands between a client and a server and cuts a connection at a chosen byte pattern. Bytes keep
 * their order: every chunk is written on as it comes.
 */
export interface TcpProxy {
  port: number;
  /**
   * Cuts the next connection whose client sends `pattern`: 'before' the server sees it, or 'after'
   * the server has answered it, when the answer is thrown away. The client can't tell which.
   *
   * @returns resolves when it has happened
   */
  cutNext(pattern: Buffer, when: 'before' | 'after'): Promise<void>;
  /** Cuts every connection and refuses new ones. */
  close(): Promise<void>;
}

interface Cut {
  pattern: Buffer;
  when: 'before' | 'after';
  done(): void;
}

export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  let armed: Cut | undefined;

  const server = net.createServer((client) => {
    const upstream = net.connect(target);
    const cutBoth = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', cutBoth);
      socket.on('close', () => {
        sockets.delete(socket);
        cutBoth();
      });
    }
    let answersTo: Cut | undefined;
    // A pattern may come in two chunks, so the end of what came before is searched as well.
    let tail = Buffer.alloc(0);
    client.on('data', (chunk) => {
      const seen = Buffer.concat([tail, chunk]);
      if (armed !== undefined && seen.includes(armed.pattern)) {
        answersTo = armed;
        armed = undefined;
        if (answersTo.when === 'before') {
          cutBoth();
          answersTo.done();
          return;
        }
      }
      tail = seen.subarray(-(armed?.pattern.length ?? 1));
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      if (answersTo === undefined) {
        client.write(chunk);
        return;
      }
      cutBoth();
      answersTo.done();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  return {
    port: (server.address() as AddressInfo).port,
    cutNext: (pattern, when) =>
      new Promise((done) => {
        armed = { pattern, when, done };
      }),
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
