import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { mysqlStatement } from '../../local-servers/src/mysql-statement.js';
import { startTcpProxy, type TcpProxy } from '../../local-servers/src/tcp-proxy.js';
import { until } from '../support/until.js';

/* What the proxy does to bytes between a client and a server that answers what it gets. */

let received = '';
let server: net.Server;
let accepted: Socket[];
let proxy: TcpProxy;
const clients: Socket[] = [];

beforeEach(async () => {
  received = '';
  accepted = [];
  server = net.createServer((socket) => {
    accepted.push(socket);
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk;
      socket.write(`got ${chunk};`);
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  proxy = await startTcpProxy(`tcp://name:secret@127.0.0.1:${port}/path?a=1`);
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  await proxy.close();
  server.close();
});

async function connect() {
  const socket = net.connect(proxy.port, '127.0.0.1');
  clients.push(socket);
  const heard = { text: '', isClosed: false };
  socket.on('data', (chunk) => {
    heard.text += chunk;
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    heard.isClosed = true;
  });
  await once(socket, 'connect');
  return { heard, send: (text: string) => socket.write(text), end: () => socket.end() };
}

test('undisturbed, both directions pass', async () => {
  const { heard, send } = await connect();
  send('a');
  await until('it is answered', () => heard.text === 'got a;');
  expect(proxy.connections()).toBe(1);
});

test("its URL is the server's, but for the address", () => {
  expect(proxy.url).toBe(`tcp://name:secret@127.0.0.1:${proxy.port}/path?a=1`);
});

test('an end arrives behind all the bytes before it', async () => {
  const { heard, send, end } = await connect();
  proxy.impair({ kind: 'delay', ms: 2 });
  // More than the buffers between here and there take at once.
  const text = 'x'.repeat(5_000_000);
  send(text);
  end();
  await until('it is closed', () => heard.isClosed);
  await until('all has come', () => received === text);
});

test('delayed chunks keep their order, also those that come when it is over', async () => {
  const { send } = await connect();
  proxy.impair({ kind: 'delay', ms: 30 });
  const words = Array.from({ length: 20 }, (_, number) => `<${number}>`);
  for (const word of words) {
    send(word);
    await new Promise((turn) => setImmediate(turn));
    if (word === '<10>') proxy.heal();
  }
  await until('all has come', () => received === words.join(''));
});

test('a throttle passes all of it in time', async () => {
  const { send } = await connect();
  proxy.impair({ kind: 'throttle', bytesPerSecond: 10_000 });
  send('x'.repeat(1_000));
  await until('all has come', () => received.length === 1_000);
});

test('a black hole swallows, and what lost bytes is cut when it is over', async () => {
  const { heard, send } = await connect();
  const untouched = await connect();
  proxy.impair({ kind: 'blackHole' });
  send('a');
  const late = await connect();
  late.send('b');
  untouched.send('');
  await new Promise((turn) => setTimeout(turn, 20));
  expect(heard).toEqual({ text: '', isClosed: false });
  proxy.heal();
  await until('both that lost bytes are cut', () => heard.isClosed && late.heard.isClosed);
  untouched.send('c');
  await until('the other goes on', () => untouched.heard.text === 'got c;');
  expect(received).toBe('c');
});

test('what is held comes when it is over, in its order', async () => {
  const { heard, send } = await connect();
  send('a');
  await until('it is answered', () => heard.text === 'got a;');
  proxy.impair({ kind: 'hold' });
  for (const word of ['b', 'c', 'd']) {
    send(word);
    await new Promise((turn) => setTimeout(turn, 5));
  }
  expect(received).toBe('a');
  proxy.heal();
  await until('all has come', () => received === 'abcd');
});

test.each(['hold', 'blackHole'] as const)(
  'a %s in one direction lets the other pass',
  async (kind) => {
    const { heard, send } = await connect();
    proxy.impair({ kind }, 'toClient');
    for (const word of ['a', 'b']) {
      send(word);
      await until('it has passed', () => received.endsWith(word));
    }
    expect(heard).toEqual({ text: '', isClosed: false });
    proxy.heal();
    if (kind === 'hold') await until('both are answered', () => heard.text === 'got a;got b;');
    else await until('it is cut', () => heard.isClosed);
  },
);

test('the server may be heard while nothing reaches it', async () => {
  const { heard, send } = await connect();
  await until('it is connected', () => accepted.length === 1);
  proxy.impair({ kind: 'hold' }, 'toServer');
  send('a');
  accepted[0]?.write('hello;');
  await until('it is heard', () => heard.text === 'hello;');
  expect(received).toBe('');
  proxy.heal();
  await until('it is answered', () => heard.text === 'hello;got a;');
});

test('a cut ends every connection and welcomes new ones', async () => {
  const first = await connect();
  first.send('a');
  await until('it is answered', () => first.heard.text !== '');
  proxy.cut();
  await until('it is cut', () => first.heard.isClosed);
  const second = await connect();
  second.send('b');
  await until('it is answered', () => second.heard.text === 'got b;');
});

test('a trap "before" keeps the moment from the server', async () => {
  let struck = 0;
  const { heard, send } = await connect();
  proxy.arm({ pattern: /commit/, when: 'before', cuts: 1, struck: () => (struck += 1) });
  send('com');
  await until('the first half has passed', () => received === 'com');
  send('mit');
  await until('it is cut', () => heard.isClosed);
  expect({ received, struck }).toEqual({ received: 'com', struck: 1 });
});

test('a trap "after" lets it pass and throws the answer away, as often as it was set', async () => {
  let struck = 0;
  proxy.arm({ pattern: /commit/, when: 'after', cuts: 2, struck: () => (struck += 1) });
  for (const number of [1, 2]) {
    const { heard, send } = await connect();
    send('commit');
    await until('it is cut', () => heard.isClosed);
    expect(heard.text).toBe('');
    expect({ received, struck }).toEqual({ received: 'commit'.repeat(number), struck: number });
  }
  const { heard, send } = await connect();
  send('commit');
  await until('the third is answered', () => heard.text === 'got commit;');
});

test('what follows a trapped moment on its connection is no other moment', async () => {
  let struck = 0;
  proxy.arm({ pattern: 'commit', when: 'after', cuts: 2, struck: () => (struck += 1) });
  proxy.impair({ kind: 'hold' }, 'toClient');
  const first = await connect();
  for (const word of ['commit', 'more']) {
    first.send(word);
    await until('it has passed', () => received.endsWith(word));
  }
  const second = await connect();
  second.send('commit');
  await until('it has passed', () => received.endsWith('morecommit'));
  // Lets what is held go, and keeps the trap.
  proxy.impair({ kind: 'delay', ms: 1 }, 'toClient');
  await until('both are cut', () => first.heard.isClosed && second.heard.isClosed);
  expect(struck).toBe(2);
});

test('the next cut is told when it has happened, and a closed proxy takes nobody', async () => {
  const { heard, send } = await connect();
  const cut = proxy.cutNext('commit', 'before');
  send('commit');
  await cut;
  await until('it is cut', () => heard.isClosed);
  expect(received).toBe('');
  await proxy.close();
  await proxy.close();
  await expect(connect()).rejects.toThrow();
});

test.each([
  ['as a driver sends it', '\x07\0\0\0\x03commit', true],
  ['as a layer spells it', '\x08\0\0\0\x03COMMIT;', true],
  ['behind query attributes', '\x09\0\0\0\x03\0\x01commit', true],
  ['as a value', "\x20\0\0\0\x03insert into t values ('commit')", false],
  ['as the beginning of another word', '\x0a\0\0\0\x03committed', false],
])('V02: a statement on the wire of MySQL is found %s: %s', (_how, bytes, isFound) => {
  expect(mysqlStatement('commit').test(bytes)).toBe(isFound);
});
