import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type LinkProxy, startProxy } from '../../soak/src/world/proxy.js';
import { until } from '../support/until.js';

/* What the soak's proxy does to bytes between a client and a server that answers what it gets. */

let received = '';
let server: net.Server;
let proxy: LinkProxy;
const clients: Socket[] = [];

beforeEach(async () => {
  received = '';
  server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk;
      socket.write(`got ${chunk};`);
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  proxy = await startProxy((server.address() as AddressInfo).port);
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
  return { heard, send: (text: string) => socket.write(text) };
}

test('in fair weather both directions pass', async () => {
  const { heard, send } = await connect();
  send('a');
  await until('it is answered', () => heard.text === 'got a;');
});

test('delayed chunks keep their order, also those that come when it is over', async () => {
  const { send } = await connect();
  proxy.treat({ kind: 'delay', ms: 30 });
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
  proxy.treat({ kind: 'throttle', bytesPerSecond: 10_000 });
  send('x'.repeat(1_000));
  await until('all has come', () => received.length === 1_000);
});

test('a black hole swallows, and what lost bytes is cut when it is over', async () => {
  const { heard, send } = await connect();
  const untouched = await connect();
  proxy.treat({ kind: 'blackHole' });
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

test('a cut ends every connection and welcomes new ones', async () => {
  const first = await connect();
  first.send('a');
  await until('it is answered', () => first.heard.text !== '');
  expect(proxy.cut()).toBe(1);
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
