import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { fittingHeaders } from '../../consumer-sdk/src/rabbit/fitting-headers.js';
import { sendableTime } from '../../consumer-sdk/src/settle/sendable.js';

/** Not among what the package exports: what it throws at is what has to be known. */
const CODEC = fileURLToPath(new URL('../../node_modules/amqplib/lib/codec.js', import.meta.url));
const { encodeTable } = createRequire(import.meta.url)(CODEC) as {
  encodeTable(buffer: Buffer, table: object, offset: number): number;
};
const FRAME_MAX = 131_072;
const bytesOf = (table: object) => encodeTable(Buffer.alloc(1024 * 1024), table, 0);

test('U11: headers that fit are passed on as they are', () => {
  const headers = { tenant: 'a', 'escrow-attempts': 1 };
  expect(fittingHeaders(headers, FRAME_MAX)).toBe(headers);
});

test.each([
  ['the library', FRAME_MAX, 65_536],
  ['a RabbitMQ with small frames', 8_192, 8_192 - 1_024],
])(
  'U11: what does not fit into a frame of %s goes without its largest headers, and says which',
  (_, frameMax, bytesMax) => {
    const headers = {
      'escrow-transaction-id': 't',
      small: 'a',
      large: 'x'.repeat(50_000),
      larger: { nested: ['é'.repeat(20_000), Buffer.alloc(20_000), 1] },
    };
    const fitting = fittingHeaders(headers, frameMax);
    expect(bytesOf(fitting)).toBeLessThan(bytesMax);
    expect(fitting).toMatchObject({ 'escrow-transaction-id': 't', small: 'a' });
    expect(fitting['escrow-left-out']).toContain('larger');
    expect(fitting).not.toHaveProperty('larger');
  },
);

test('U11: headers called like ours, and nothing else, are cut as well', () => {
  const forged = Object.fromEntries(
    Array.from({ length: 200 }, (_, n) => [`escrow-${n}`, 'x'.repeat(1_000)]),
  );
  expect(bytesOf(fittingHeaders(forged, FRAME_MAX))).toBeLessThan(65_536);
});

test('U11: a time at the end of its 64 bits can be sent again', () => {
  expect(BigInt(sendableTime(2 ** 64))).toBeLessThan(2n ** 64n);
  expect(sendableTime(1_700_000_000)).toBe(1_700_000_000);
});
