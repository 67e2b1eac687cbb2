import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  type KitProxy,
  startDatabaseProxy,
} from '../../producer-sdk/src/fault-kit/database-proxy.js';
import { until } from '../support/until.js';

/** A server that keeps what it gets and answers every chunk with "ok". */
let server: net.Server;
let received: string;
let proxy: KitProxy;
const clients: Socket[] = [];

beforeEach(async () => {
  received = '';
  server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      socket.write('ok');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  proxy = await startDatabaseProxy({ host: '127.0.0.1', port });
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  await proxy.close();
  server.close();
  await once(server, 'close');
});

async function connected(): Promise<Socket> {
  const client = net.connect(proxy.port, proxy.host);
  client.on('error', () => {});
  // A socket whose bytes nobody reads never closes.
  client.resume();
  clients.push(client);
  await once(client, 'connect');
  return client;
}

const send = (client: Socket, bytes: string) => client.write(Buffer.from(bytes, 'latin1'));
const receives = (bytes: string) => until(`${bytes} arrives`, () => received.endsWith(bytes));

const query = (sql: string) => `${String.fromCharCode(sql.length + 1)}\0\0\0\x03${sql}`;
const withAttributes = (sql: string) =>
  `${String.fromCharCode(sql.length + 3)}\0\0\0\x03\0\x01${sql}`;
const simple = (sql: string) => `Q\0\0\0${String.fromCharCode(sql.length + 5)}${sql}\0`;
const parsed = (name: string, sql: string) =>
  `P\0\0\0${String.fromCharCode(name.length + sql.length + 8)}${name}\0${sql}\0\0\0`;

const COMMITS: [string, string][] = [
  ['of mysql2', query('commit')],
  ['of an ORM on MySQL', query('COMMIT;')],
  ['with query attributes', withAttributes('COMMIT')],
  ['of pg', simple('COMMIT')],
  ['of a named statement on PostgreSQL', parsed('s1', ' commit')],
];

describe('a COMMIT', () => {
  test.each(COMMITS)('%s is cut before it arrives', async (_of, commit) => {
    const client = await connected();
    const cut = proxy.cutNextCommit('before');
    send(client, query('select 1'));
    await receives('select 1');
    send(client, commit);
    await Promise.all([cut, once(client, 'close')]);
    expect(received).toBe(query('select 1'));
  });

  test.each(COMMITS)(
    '%s is cut after it has arrived, and its answer is lost',
    async (_of, commit) => {
      const client = await connected();
      let answers = '';
      client.on('data', (chunk) => {
        answers += chunk.toString();
      });
      const cut = proxy.cutNextCommit('after');
      send(client, commit);
      await Promise.all([cut, once(client, 'close')]);
      expect(received).toBe(commit);
      expect(answers).toBe('');
    },
  );

  test('that comes in two chunks is seen', async () => {
    const client = await connected();
    const cut = proxy.cutNextCommit('before');
    send(client, query('commit').slice(0, -3));
    await receives('com');
    send(client, 'mit');
    await Promise.all([cut, once(client, 'close')]);
  });

  test('is cut once', async () => {
    const first = await connected();
    const cut = proxy.cutNextCommit('before');
    send(first, query('commit'));
    await cut;
    send(await connected(), query('commit'));
    await receives('commit');
  });

  test('is let through when the cut was forgotten', async () => {
    void proxy.cutNextCommit('before');
    proxy.disarm();
    send(await connected(), query('commit'));
    await receives('commit');
  });

  test.each([
    ['a value of a prepared statement on MySQL', `\x12\0\0\0\x17\x01\0\0\0\0\x06commit`],
    ['a value on PostgreSQL', 'B\0\0\0\x20\0\0\0\0Q\0\0\0\x06commit'],
    ['a value in a statement', query("insert into b values ('x', 'commit')")],
    ['another word', simple('committed')],
  ])('is not %s', async (_name, bytes) => {
    let isCut = false;
    void proxy.cutNextCommit('before').then(() => {
      isCut = true;
    });
    const client = await connected();
    send(client, bytes);
    await once(client, 'data');
    expect(received).toBe(bytes);
    expect(isCut).toBe(false);
  });
});

describe('a BEGIN', () => {
  test.each([
    query('START TRANSACTION'),
    query('BEGIN'),
    simple('begin isolation level serializable'),
  ])('is held while others go on: %j', async (begin) => {
    const client = await connected();
    const { held, release } = proxy.holdNextBegin();
    send(client, begin);
    await held;
    send(await connected(), query('select 2'));
    await receives('select 2');
    expect(received).not.toContain(begin);
    release();
    await receives(begin);
  });
});

test('a database that is unreachable cuts every connection and takes no new one', async () => {
  const before = await connected();
  send(before, query('select 1'));
  await receives('select 1');
  proxy.setReachable(false);
  await once(before, 'close');
  const meanwhile = await connected();
  await once(meanwhile, 'close');
  proxy.setReachable(true);
  send(await connected(), query('select 3'));
  await receives('select 3');
  expect(proxy.connections()).toBe(2);
});
