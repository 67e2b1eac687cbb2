import net, { type AddressInfo, type Socket } from 'node:net';
import { type Deferred, deferred } from './deferred.js';

/** Stands between a pool of the producer and its database. */
export interface DatabaseProxy {
  /** What the pool takes for the host of its database. */
  readonly host: string;
  /** What the pool takes for the port of its database. */
  readonly port: number;
}

/**
 * What the kit does with it. It reads the statements of the wire protocols of MySQL and PostgreSQL,
 * so the connections must not use TLS or compression. Bytes keep their order.
 */
export interface KitProxy extends DatabaseProxy {
  /** Connections that came through it so far. */
  connections(): number;
  /**
   * Cuts the connection that sends the next COMMIT: 'before' the database sees it, or 'after' it
   * has answered, when the answer is thrown away. The client can't tell which.
   *
   * @returns resolves when it has happened
   */
  cutNextCommit(when: 'before' | 'after'): Promise<void>;
  /** Holds the connection that sends the next BEGIN; others go on. */
  holdNextBegin(): HeldBegin;
  /** Forgets a cut or a hold that nothing has come for. */
  disarm(): void;
  /** While it is unreachable every connection is cut and every new one refused. */
  setReachable(isReachable: boolean): void;
  /** Cuts every connection and listens no more. */
  close(): Promise<void>;
}

/** The hold on a BEGIN. */
export interface HeldBegin {
  /** Resolves when a BEGIN came. */
  held: Promise<void>;
  /** Lets it go on, or forgets the hold where none has come. */
  release(): void;
}

/*
 * This is published with the kit, so it can't be built on the proxy of the repository's own tests
 * (local-servers), which is private; and it knows of statements, which that one does not.
 *
 * A statement stands at the start of its message. MySQL: sequence number 0, the command byte 3, with
 * query attributes two bytes that say there are none, the text. PostgreSQL: `Q`, four bytes of
 * length, the text; or `P`, the length, a name that ends in a zero byte, the text. The length is at
 * least that of the word, so that the value 'commit' of six bytes in a message of its own is no
 * statement.
 */
const statement = (words: string) =>
  new RegExp(
    `(?:\\0\\x03(?:\\0\\x01)?|Q\\0\\0\\0[\\x0a-\\x7f]|P\\0\\0[\\s\\S]{2}[^\\0]{0,63}\\0)\\s*(?:${words})\\b`,
    'i',
  );
const COMMIT = statement('commit');
const BEGIN = statement('begin|start\\s+transaction');

/** A statement may come in two chunks, so the end of what came before is searched as well. */
const TAIL_BYTES = 96;

type Armed =
  | { kind: 'cut'; pattern: RegExp; when: 'before' | 'after'; done: Deferred }
  | { kind: 'hold'; pattern: RegExp; held: Deferred; released: Deferred };

export async function startDatabaseProxy(target: {
  host: string;
  port: number;
}): Promise<KitProxy> {
  const sockets = new Set<Socket>();
  let armed: Armed | undefined;
  let isReachable = true;
  let connections = 0;

  /** What is armed for this chunk, which is disarmed by it. */
  function strike(seen: string): Armed | undefined {
    if (armed === undefined || !armed.pattern.test(seen)) return undefined;
    const struck = armed;
    armed = undefined;
    return struck;
  }

  const server = net.createServer((client) => {
    if (!isReachable) {
      client.destroy();
      return;
    }
    connections += 1;
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
    let answersTo: Deferred | undefined;
    let tail = '';
    client.on('data', (chunk) => {
      const seen = tail + chunk.toString('latin1');
      const struck = strike(seen);
      tail = struck === undefined ? seen.slice(-TAIL_BYTES) : '';
      if (struck?.kind === 'hold') {
        client.pause();
        struck.held.resolve();
        void struck.released.promise.then(() => {
          upstream.write(chunk);
          client.resume();
        });
        return;
      }
      if (struck?.when === 'before') {
        cutBoth();
        struck.done.resolve();
        return;
      }
      if (struck !== undefined) answersTo = struck.done;
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      if (answersTo === undefined) {
        client.write(chunk);
        return;
      }
      cutBoth();
      answersTo.resolve();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  return {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    connections: () => connections,
    cutNextCommit(when) {
      const done = deferred();
      armed = { kind: 'cut', pattern: COMMIT, when, done };
      return done.promise;
    },
    holdNextBegin() {
      const hold: Armed = {
        kind: 'hold',
        pattern: BEGIN,
        held: deferred(),
        released: deferred(),
      };
      armed = hold;
      return {
        held: hold.held.promise,
        release() {
          if (armed === hold) armed = undefined;
          hold.released.resolve();
        },
      };
    },
    disarm() {
      armed = undefined;
    },
    setReachable(reachable) {
      isReachable = reachable;
      if (!reachable) for (const socket of sockets) socket.destroy();
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
