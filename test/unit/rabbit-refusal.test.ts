import { EventEmitter } from 'node:events';
import {
  createHandshake,
  explainRabbitFailure,
  type HandshakeAnswer,
  rabbitLoginOf,
  rabbitUrlProblem,
  refusalOf,
} from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';

const URL_OF_TESTS = 'amqp://shop:s3cret@rabbit.internal:5673/orders';
const LOGIN = rabbitLoginOf(URL_OF_TESTS);

describe('U15: what a URL says', () => {
  test.each([
    [URL_OF_TESTS, 'shop', 's3cret', 'orders'],
    ['amqp://localhost', 'guest', 'guest', '/'],
    ['amqp://localhost/', 'guest', 'guest', '/'],
    ['amqp://localhost/%2f', 'guest', 'guest', '/'],
    ['amqp://j%C3%BCrgen:pa%C3%9F%20w%25@h/%C3%BC', 'jürgen', 'paß w%', 'ü'],
    ['amqp://jürgen:paß@h', 'jürgen', 'paß', '/'],
    ['amqp://u:gu%zz%41@h', 'u', 'gu%zzA', '/'],
    // Latin-1, as the client library has read it so far.
    ['amqp://u:pa%DF@h', 'u', 'paß', '/'],
    ['amqp://u@h', 'u', '', '/'],
  ])('%s', (url, username, password, vhost) => {
    expect(rabbitLoginOf(url)).toMatchObject({ username, password, vhost });
  });

  test.each([
    ['amqp://h', { tls: false, hostname: 'h', port: 5672, shown: 'h' }],
    ['amqps://h', { tls: true, hostname: 'h', port: 5671, shown: 'h' }],
    ['amqp://[::1]:99/x', { hostname: '::1', port: 99, shown: '[::1]:99' }],
  ])('%s leads to %j', (url, login) => {
    expect(rabbitLoginOf(url)).toMatchObject(login);
  });

  test.each([
    ['http://u:s3cret@h', 'must be an amqp'],
    ['s3cret', 'must be an amqp'],
    [undefined, 'must be an amqp'],
    ['amqp://u:s3cret@h?heartbeat=abc', 'heartbeat as a whole number'],
    ['amqp://u:s3cret@h?heartbeat=99999', 'heartbeat as at most 65535'],
    ['amqp://u:s3cret@h?frameMax=100', 'frameMax as 0 or at least 4096'],
    ['amqp://u:s3cret@h?channelMax=-1', 'channelMax as a whole number'],
  ])('%s is refused without its password', (url, said) => {
    expect(rabbitUrlProblem(url)).toContain(said);
    expect(rabbitUrlProblem(url)).not.toContain('s3cret');
  });

  test.each(['amqp://h', 'amqps://h/x?heartbeat=0', 'amqp://h?frameMax=0&channelMax=10'])(
    '%s is right',
    (url) => expect(rabbitUrlProblem(url)).toBeUndefined(),
  );
});

/** A frame of RabbitMQ on channel 0. */
function frame(classId: number, methodId: number, args: Buffer): Buffer {
  const head = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, classId, 0, methodId]);
  head.writeUInt32BE(4 + args.length, 3);
  return Buffer.concat([head, args, Buffer.from([0xce])]);
}
const START = frame(
  10,
  10,
  Buffer.from([0, 9, 0, 0, 0, 0, 0, 0, 0, 5, ...Buffer.from('PLAIN'), 0, 0, 0, 0]),
);
const TUNE = frame(10, 30, Buffer.from([7, 255, 0, 2, 0, 0, 0, 60]));
const OPEN_OK = frame(10, 41, Buffer.from([0]));
function close(code: number, text: string): Buffer {
  const said = Buffer.from(text);
  const args = Buffer.concat([Buffer.from([code >> 8, code & 255, said.length]), said]);
  return frame(10, 50, Buffer.concat([args, Buffer.alloc(4)]));
}

/** Everything that is sent, and the answer, when these bytes come. */
function shake(bytes: Buffer, pieceBytes = bytes.length) {
  const handshake = createHandshake(LOGIN);
  const sent: Uint8Array[] = [handshake.hello];
  let answer: HandshakeAnswer | undefined;
  for (let at = 0; at < bytes.length && answer === undefined; at += pieceBytes) {
    const next = handshake.receive(bytes.subarray(at, at + pieceBytes));
    sent.push(...next.send);
    answer = next.answer;
  }
  return { sent: Buffer.concat(sent), answer: answer ?? handshake.end('cut') };
}

describe('U15: the handshake that listens', () => {
  test('sends what a login takes', () => {
    const { sent, answer } = shake(Buffer.concat([START, TUNE, OPEN_OK]));
    expect(answer).toEqual({ kind: 'accepted' });
    expect(sent.subarray(0, 8).toString('latin1')).toBe('AMQP\0\0\x09\x01');
    expect(sent.includes('PLAIN\0\0\0\x0c\0shop\0s3cret')).toBe(true);
    expect(sent.includes('\x06orders')).toBe(true);
  });

  test.each([1, 3, 1000])('hears the sentence of a close in pieces of %i bytes', (pieceBytes) => {
    const bytes = Buffer.concat([START, TUNE, close(530, 'NOT_ALLOWED - vhost orders not found')]);
    expect(shake(bytes, pieceBytes).answer).toEqual({
      kind: 'closed',
      code: 530,
      text: 'NOT_ALLOWED - vhost orders not found',
      after: 'open',
    });
  });

  test.each([
    ['HTTP/1.1 400 Bad Request\r\n\r\n', 'http'],
    ['AMQP\x03\x01\0\0', 'amqp'],
    ['AMQP\0\0\x09\x01', 'amqp'],
    ['\x15\x03\x01\0\x02\x02\x16', 'tls'],
    ['SSH-2.0-OpenSSH_9.2\r\n', 'other'],
    ['J\0\0\0\x0a8.0.30\0', 'other'],
    // A first byte like that of a frame, and nothing of one behind it.
    ['\x01\xff\xff\xff\xff\xff\xff\xff', 'other'],
  ])('%j is somebody else', (said, what) => {
    expect(shake(Buffer.from(said, 'latin1')).answer).toMatchObject({ kind: 'foreign', what });
  });

  test('a connection that ends says after which step', () => {
    expect(shake(Buffer.alloc(0)).answer).toEqual({
      kind: 'silent',
      after: 'hello',
      reason: 'cut',
    });
    expect(shake(START).answer).toMatchObject({ kind: 'silent', after: 'login' });
    expect(shake(Buffer.concat([START, TUNE])).answer).toMatchObject({ after: 'open' });
  });
});

describe('U15: what is said of a refusal', () => {
  const closed = (code: number, text: string, after: 'login' | 'open' = 'open') =>
    refusalOf({ kind: 'closed', code, text, after }, LOGIN);

  test.each([
    [530, 'NOT_ALLOWED - vhost orders not found', 'has no virtual host "orders"', false],
    [530, "NOT_ALLOWED - access to vhost 'orders' refused for user 'shop'", 'permissions', false],
    [
      403,
      "ACCESS_REFUSED - access to vhost 'orders' refused for user 'shop'",
      'permissions',
      false,
    ],
    [530, 'NOT_ALLOWED - negotiated frame_max 4096 is lower than …', 'frame_max', false],
    [
      530,
      "NOT_ALLOWED - access to vhost 'orders' refused for user 'shop': connection limit (0) is reached",
      'connection limit',
      true,
    ],
    [
      541,
      "INTERNAL_ERROR - access to vhost 'orders' refused: vhost 'orders' is down",
      'down',
      true,
    ],
    [
      320,
      "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
      '320',
      true,
    ],
  ])('%i %s', (code, text, said, heals) => {
    const refusal = closed(code, text);
    expect(refusal.heals).toBe(heals);
    for (const word of [said, 'rabbit.internal:5673', '"orders"', '"shop"']) {
      expect(refusal.message).toContain(word);
    }
    expect(refusal.message).not.toContain('s3cret');
  });

  test('somebody else at the port is named, and the ports of RabbitMQ', () => {
    const http = refusalOf({ kind: 'foreign', what: 'http', said: 'HTTP/1.1 400' }, LOGIN);
    expect(http).toMatchObject({ heals: false, message: expect.stringContaining('a web server') });
    const tls = refusalOf({ kind: 'foreign', what: 'tls', said: '' }, LOGIN);
    expect(tls).toMatchObject({ heals: false, message: expect.stringContaining('use amqps://') });
  });
});

/** A socket that answers each write with the next of these, and ends when there are no more. */
function socketThatSays(...says: Buffer[]) {
  const socket = Object.assign(new EventEmitter(), {
    destroyed: 0,
    write() {
      const said = says.shift();
      queueMicrotask(() => (said ? socket.emit('data', said) : socket.emit('close')));
    },
    destroy: () => {
      socket.destroyed += 1;
    },
  });
  return socket;
}

describe('U15: an error of the client library, explained', () => {
  const explain = (error: unknown, ...says: Buffer[]) => {
    const socket = socketThatSays(...says);
    return explainRabbitFailure(error, LOGIN, () => socket);
  };
  const coded = (code: string, message = code) => Object.assign(new Error(message), { code });
  const never = () => {
    throw new Error('nobody is to be asked');
  };

  test('what it leaves out is asked for, and the connection is closed', async () => {
    const socket = socketThatSays(START, TUNE, close(530, 'NOT_ALLOWED - vhost orders not found'));
    const error = new Error('Expected ConnectionOpenOk; got <ConnectionClose channel:0>');
    const refusal = await explainRabbitFailure(error, LOGIN, () => socket);
    expect(refusal).toMatchObject({ heals: false });
    expect(refusal?.message).toContain('vhost orders not found');
    expect(socket.destroyed).toBeGreaterThan(0);
  });

  test('a web server is found behind an absurd size of a frame', async () => {
    const error = new Error('Frame size 1345270062 exceeds maxFrameSize 67108864');
    const refusal = await explain(error, Buffer.from('HTTP/1.1 400 Bad Request\r\n'));
    expect(refusal).toMatchObject({ heals: false });
    expect(refusal?.message).toContain('a web server answers (it says "HTTP/1.1 400 Bad Request")');
  });

  test('a server that only ends the connection is tried again', async () => {
    const refusal = await explain(new Error('Socket closed abruptly during opening handshake'));
    expect(refusal).toMatchObject({ heals: true });
  });

  test.each([
    [coded('ERR_SSL_WRONG_VERSION_NUMBER'), 'nobody speaks TLS'],
    [
      coded('EPROTO', 'write EPROTO 00:error:SSL routines::wrong version number'),
      'nobody speaks TLS',
    ],
    [coded('DEPTH_ZERO_SELF_SIGNED_CERT', 'self-signed certificate'), 'NODE_EXTRA_CA_CERTS'],
    [coded('CERT_HAS_EXPIRED'), 'not trusted'],
    [coded('ERR_TLS_CERT_ALTNAME_INVALID'), 'not trusted'],
    [
      new Error(
        'Handshake terminated by server: 403 (ACCESS-REFUSED) with message "ACCESS_REFUSED"',
      ),
      'user or the password is wrong',
    ],
  ])('%s says enough by itself', async (error, said) => {
    const refusal = await explainRabbitFailure(error, LOGIN, never);
    expect(refusal).toMatchObject({ heals: false, message: expect.stringContaining(said) });
  });

  test.each([coded('ECONNREFUSED'), coded('ENOTFOUND'), new Error('connect ETIMEDOUT')])(
    '%s is left as it is',
    async (error) => {
      expect(await explainRabbitFailure(error, LOGIN, never)).toBeUndefined();
    },
  );

  test('a socket that can not be made is silence', async () => {
    const refusal = await explainRabbitFailure(new Error('Expected …'), LOGIN, never);
    expect(refusal).toMatchObject({ heals: true });
  });
});
