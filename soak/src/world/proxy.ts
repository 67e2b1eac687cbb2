import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';

/**
 * What stands between two parties of the soak, and can do to their bytes what a network does. One
 * listener, any number of connections.
 *
 * Bytes keep their order whatever is done: a chunk that is delayed holds back its direction until
 * it was written on. Delaying with a timer per chunk would reorder them and corrupt the stream,
 * which is no fault of a network but a bug in the experiment.
 */
export interface LinkProxy {
  port: number;
  /** Destroys every connection; new ones are welcome. @returns how many there were */
  cut(): number;
  /** What happens to all bytes, of connections that there are and of new ones. */
  treat(weather: Weather): void;
  /**
   * Cuts connections whose client sends `pattern`: `before` the server sees it, or `after` the server
   * has answered, when the answer is thrown away. The client can't tell which.
   */
  arm(trap: Trap): void;
  /** Fair weather again, no trap. Connections that lost bytes in a black hole are cut. */
  heal(): void;
  /** Cuts every connection and listens no more. */
  close(): Promise<void>;
}

export type Weather =
  | { kind: 'fair' }
  /** Nothing comes through in either direction, and nobody is told. */
  | { kind: 'blackHole' }
  /** Every chunk waits that long. */
  | { kind: 'delay'; ms: number }
  | { kind: 'throttle'; bytesPerSecond: number };

export interface Trap {
  pattern: RegExp;
  when: 'before' | 'after';
  /** As many connections are cut, then the trap is gone. */
  cuts: number;
  /** Called for each. */
  struck(): void;
}

/** A pattern may come in two chunks, so the end of what came before is searched as well. */
const TAIL_CHARS = 64;

interface Condition {
  weather: Weather;
  trap: Trap | undefined;
}

interface Connection {
  /** Bytes of it were swallowed, so it can never be right again. */
  hasLostBytes: boolean;
  cut(): void;
}

export async function startProxy(targetPort: number): Promise<LinkProxy> {
  const condition: Condition = { weather: { kind: 'fair' }, trap: undefined };
  const open = new Set<Connection>();
  const server = net.createServer((client) => {
    open.add(
      connect(client, targetPort, { condition, ended: (connection) => open.delete(connection) }),
    );
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const cutWhere = (isMeant: (connection: Connection) => boolean) => {
    const meant = [...open].filter(isMeant);
    for (const connection of meant) connection.cut();
    return meant.length;
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut: () => cutWhere(() => true),
    treat(weather) {
      condition.weather = weather;
    },
    arm(trap) {
      condition.trap = trap;
    },
    heal() {
      condition.weather = { kind: 'fair' };
      condition.trap = undefined;
      cutWhere(({ hasLostBytes }) => hasLostBytes);
    },
    async close() {
      const closed = once(server.close(), 'close');
      cutWhere(() => true);
      await closed;
    },
  };
}

interface Surroundings {
  condition: Condition;
  ended(connection: Connection): void;
}

function connect(
  client: Socket,
  targetPort: number,
  { condition, ended }: Surroundings,
): Connection {
  const upstream = net.connect(targetPort, '127.0.0.1');
  const connection: Connection = {
    hasLostBytes: false,
    cut() {
      client.destroy();
      upstream.destroy();
      ended(connection);
    },
  };
  for (const socket of [client, upstream]) {
    socket.setNoDelay(true);
    // An end in one direction ends both: none of the protocols here goes on one-sided.
    socket.on('error', connection.cut);
    socket.on('close', connection.cut);
  }
  let answersTo: Trap | undefined;
  let tail = '';

  /** @returns whether the chunk may go on */
  function passesTrap(chunk: Buffer): boolean {
    const { trap } = condition;
    if (trap === undefined) {
      tail = '';
      return true;
    }
    const seen = tail + chunk.toString('latin1');
    tail = seen.slice(-TAIL_CHARS);
    if (!trap.pattern.test(seen)) return true;
    trap.cuts -= 1;
    if (trap.cuts <= 0) condition.trap = undefined;
    if (trap.when === 'after') {
      answersTo = trap;
      return true;
    }
    trap.struck();
    connection.cut();
    return false;
  }

  pump(client, upstream, { condition, connection, mayPass: passesTrap });
  pump(upstream, client, {
    condition,
    connection,
    mayPass() {
      if (answersTo === undefined) return true;
      answersTo.struck();
      connection.cut();
      return false;
    },
  });
  return connection;
}

interface Passage {
  condition: Condition;
  connection: Connection;
  mayPass(chunk: Buffer): boolean;
}

/** Writes on what comes, one chunk after the other. */
function pump(from: Socket, to: Socket, { condition, connection, mayPass }: Passage): void {
  from.on('data', (chunk) => {
    const { weather } = condition;
    if (weather.kind === 'blackHole') {
      connection.hasLostBytes = true;
      return;
    }
    if (connection.hasLostBytes || !mayPass(chunk)) return;
    const waitMs = waitOf(weather, chunk.length);
    if (waitMs === 0) {
      if (to.write(chunk)) return;
      from.pause();
      to.once('drain', () => from.resume());
      return;
    }
    from.pause();
    setTimeout(() => {
      if (to.destroyed) return;
      to.write(chunk);
      from.resume();
    }, waitMs);
  });
}

function waitOf(weather: Weather, bytes: number): number {
  switch (weather.kind) {
    case 'fair':
    case 'blackHole':
      return 0;
    case 'delay':
      return weather.ms;
    case 'throttle':
      return Math.ceil((bytes / weather.bytesPerSecond) * 1000);
  }
}
