import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';

/*
 * Stands between clients and a server, and does to their bytes what a network does. One listener,
 * any number of connections.
 *
 * Bytes keep their order whatever is done: a chunk that has to wait holds back its direction until
 * it was written on. A timer for each chunk would reorder them and corrupt the stream, which is no
 * fault of a network but a bug in the experiment. An end of one side arrives at the other behind
 * the bytes before it, and ends both directions: none of the protocols here goes on one-sided.
 */

export interface TcpProxy {
  /** On 127.0.0.1. */
  port: number;
  /** The server's URL with the proxy in the server's place. */
  url: string;
  /** Connections that clients have made so far. */
  connections(): number;
  /**
   * What happens to bytes from now on, of connections that there are and of new ones. Replaces
   * what was said of that direction before.
   * @param direction @default both
   */
  impair(impairment: Impairment, direction?: Direction): void;
  /**
   * Takes impairments and the trap away, and lets go of what was held. Connections that lost bytes
   * in a black hole are cut: they can never be right again.
   */
  heal(): void;
  /** Cuts every connection; new ones are welcome. */
  cut(): void;
  /** Cuts connections at a moment of their clients' choice. Replaces the trap before. */
  arm(trap: Trap): void;
  /**
   * Cuts the next connection whose client sends `pattern`; see `Trap`.
   * @returns resolves when it has happened
   */
  cutNext(pattern: Trap['pattern'], when: Trap['when']): Promise<void>;
  /** Cuts every connection and refuses new ones. May be called again. */
  close(): Promise<void>;
}

export type Direction = 'toServer' | 'toClient';

export type Impairment =
  /** Nothing comes through, and nobody is told. */
  | { kind: 'blackHole' }
  /** Nothing comes through until this ends, and nothing is lost. */
  | { kind: 'hold' }
  /** Every chunk waits that long. */
  | { kind: 'delay'; ms: number }
  | { kind: 'throttle'; bytesPerSecond: number };

export interface Trap {
  /** Searched in what clients send, a character for each byte; at most 256 of them. */
  pattern: string | RegExp;
  /**
   * `before` the server sees it, or `after` the server has answered, when the answer is thrown
   * away. The client can't tell which.
   */
  when: 'before' | 'after';
  /** As many connections are cut, then the trap is gone. */
  cuts: number;
  /** Called for each. */
  struck(): void;
}

/** A pattern may come in two chunks. None is longer than a name of AMQP and its length. */
const PATTERN_BYTES_MAX = 256;

/** What all connections of a proxy have in common. */
interface Link {
  impairments: Partial<Record<Direction, Impairment>>;
  trap: Trap | undefined;
  /** Each takes the chunk it holds once more. */
  held: Set<() => void>;
  open: Set<Connection>;
}

interface Connection {
  hasLostBytes: boolean;
  cut(): void;
}

/**
 * @param target URL of the server, of any scheme; it must name the port
 * @example
 * const proxy = await startTcpProxy('mysql://root@127.0.0.1:3306/test');
 * const pool = createPool(proxy.url);
 * const cut = proxy.cutNext(mysqlStatement('commit'), 'after');
 */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  const url = new URL(target);
  const { hostname, port } = url;
  const link: Link = { impairments: {}, trap: undefined, held: new Set(), open: new Set() };
  let connections = 0;
  const server = net.createServer((client) => {
    connections += 1;
    connect(link, client, net.connect(Number(port), hostname));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const own = server.address() as AddressInfo;
  url.host = `127.0.0.1:${own.port}`;

  const cutWhere = (isMeant: (connection: Connection) => boolean) => {
    for (const connection of [...link.open].filter(isMeant)) connection.cut();
  };
  const letGo = () => {
    const held = [...link.held];
    link.held.clear();
    for (const takeAgain of held) takeAgain();
  };
  return {
    port: own.port,
    url: url.href,
    connections: () => connections,
    impair(impairment, direction) {
      if (direction !== 'toClient') link.impairments.toServer = impairment;
      if (direction !== 'toServer') link.impairments.toClient = impairment;
      letGo();
    },
    heal() {
      link.impairments = {};
      link.trap = undefined;
      cutWhere(({ hasLostBytes }) => hasLostBytes);
      letGo();
    },
    cut: () => cutWhere(() => true),
    arm(trap) {
      link.trap = trap;
    },
    cutNext: (pattern, when) =>
      new Promise((struck) => {
        link.trap = { pattern, when, cuts: 1, struck };
      }),
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        cutWhere(() => true);
      }),
  };
}

function connect(link: Link, client: Socket, upstream: Socket): void {
  const connection: Connection = {
    hasLostBytes: false,
    cut() {
      client.destroy();
      upstream.destroy();
      link.open.delete(connection);
    },
  };
  link.open.add(connection);
  for (const socket of [client, upstream]) {
    socket.setNoDelay(true);
    socket.on('error', connection.cut);
    socket.on('close', () => {
      if (client.closed && upstream.closed) link.open.delete(connection);
    });
  }
  const trap = watch(link, connection);
  pump(
    { from: client, to: upstream, direction: 'toServer', mayPass: trap.maySend },
    link,
    connection,
  );
  pump(
    { from: upstream, to: client, direction: 'toClient', mayPass: trap.mayAnswer },
    link,
    connection,
  );
}

/** Whether a chunk may go on; where it is what the trap waits for, the connection is cut. */
function watch(link: Link, connection: Connection) {
  /** The trap whose pattern was sent, while the answer has not come. */
  let struck: Trap | undefined;
  let tail = '';
  return {
    maySend(chunk: Buffer): boolean {
      const { trap } = link;
      if (trap === undefined || struck !== undefined) {
        tail = '';
        return true;
      }
      const sent = tail + chunk.toString('latin1');
      tail = sent.slice(-PATTERN_BYTES_MAX);
      const { pattern } = trap;
      if (!(typeof pattern === 'string' ? sent.includes(pattern) : pattern.test(sent))) return true;
      link.trap = trap.cuts > 1 ? { ...trap, cuts: trap.cuts - 1 } : undefined;
      if (trap.when === 'after') {
        struck = trap;
        return true;
      }
      connection.cut();
      trap.struck();
      return false;
    },
    mayAnswer(): boolean {
      if (struck === undefined) return true;
      connection.cut();
      struck.struck();
      return false;
    },
  };
}

interface Passage {
  from: Socket;
  to: Socket;
  direction: Direction;
  mayPass(chunk: Buffer): boolean;
}

/** Writes on what comes, one chunk after the other. */
function pump({ from, to, direction, mayPass }: Passage, link: Link, connection: Connection): void {
  // What came behind a lost byte would be garbage to the one who reads it.
  let hasLostBytes = false;
  let isHeldBack = false;
  let hasEnded = false;

  function take(chunk: Buffer): void {
    const impairment = link.impairments[direction];
    if (impairment?.kind === 'blackHole') {
      hasLostBytes = true;
      connection.hasLostBytes = true;
    }
    if (hasLostBytes) return;
    switch (impairment?.kind) {
      case 'hold':
        link.held.add(holdBack(() => take(chunk)));
        return;
      case 'delay':
        setTimeout(
          holdBack(() => pass(chunk)),
          impairment.ms,
        );
        return;
      case 'throttle':
        setTimeout(
          holdBack(() => pass(chunk)),
          (chunk.length / impairment.bytesPerSecond) * 1000,
        );
        return;
      default:
        pass(chunk);
    }
  }

  /** @returns goes on with `next` */
  function holdBack(next: () => void): () => void {
    isHeldBack = true;
    from.pause();
    return () => {
      isHeldBack = false;
      from.resume();
      next();
      endIfDone();
    };
  }

  function pass(chunk: Buffer): void {
    if (!to.writable || !mayPass(chunk) || to.write(chunk)) return;
    from.pause();
    to.once('drain', () => from.resume());
  }

  /** A socket that was paused tells its end all the same. */
  function endIfDone(): void {
    if (hasEnded && !isHeldBack) to.destroySoon();
  }

  from.on('data', take);
  from.on('end', () => {
    hasEnded = true;
    endIfDone();
  });
}
