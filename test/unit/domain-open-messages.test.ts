import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { anyOpen, fill, openNumbers } from '../../broker/src/domain/open-messages.js';
import { bodyOf, contentTypeOf } from '../../broker/src/domain/outgoing.js';
import type { Message } from '../../broker/src/domain/transaction.js';
import { message } from '../support/store-fixtures.js';

const { data: _, ...bare } = message();
const open: Message = { ...bare, dataAtCommit: true };
const ROOM = 1_000_000;

const given = (...numbers: number[]) => numbers.map((number) => ({ number, data: { number } }));

describe('the data of a commit', () => {
  test('it fills every open message and leaves the others as they are', () => {
    const messages = [open, message({ data: 'here' }), open];
    const result = fill(messages, { data: given(2, 0), bytesMax: ROOM });
    if (result.kind !== 'filled') throw new Error(result.kind);
    expect(result.messages).toEqual([
      { ...bare, data: { number: 0 } },
      messages[1],
      { ...bare, data: { number: 2 } },
    ]);
    expect(JSON.parse(result.messagesJson)).toEqual(result.messages);
    expect(result.bytes).toBe(Buffer.byteLength(result.messagesJson));
    expect(anyOpen(result.messages)).toBe(false);
  });

  test('bytes come with their content type', () => {
    const data = [{ number: 0, dataBase64: 'AP8=', contentType: 'image/png' }];
    const result = fill([open], { data, bytesMax: ROOM });
    const [filled] = result.kind === 'filled' ? result.messages : [];
    expect([...bodyOf(filled!)]).toEqual([0x00, 0xff]);
    expect(contentTypeOf(filled!)).toBe('image/png');
  });

  test('whatever is open and given, all fits or the numbers that do not are named', () => {
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 32 }),
        fc.uniqueArray(fc.integer({ min: 0, max: 31 })),
        (openness, numbers) => {
          const messages = openness.map((isOpen) => (isOpen ? open : message()));
          const wanted = openNumbers(messages);
          const notOpen = numbers.filter((number) => openness[number] !== true);
          const missing = wanted.filter((number) => !numbers.includes(number));
          const result = fill(messages, { data: given(...numbers), bytesMax: ROOM });
          if (notOpen.length > 0) {
            expect(result).toEqual({
              kind: 'refused',
              refusal: { kind: 'notOpen', numbers: notOpen },
            });
          } else if (missing.length > 0) {
            expect(result).toEqual({
              kind: 'refused',
              refusal: { kind: 'missing', numbers: missing },
            });
          } else {
            expect(result.kind).toBe('filled');
          }
        },
      ),
    );
  });

  test('the limit is that of the whole transaction, to the byte', () => {
    const data = [{ number: 1, data: 'é'.repeat(500) }];
    const messages = [message({ data: 'x'.repeat(500) }), open];
    const filled = fill(messages, { data, bytesMax: ROOM });
    const bytes = filled.kind === 'filled' ? filled.bytes : 0;
    expect(bytes).toBeGreaterThan(1_500);
    expect(fill(messages, { data, bytesMax: bytes }).kind).toBe('filled');
    expect(fill(messages, { data, bytesMax: bytes - 1 })).toEqual({
      kind: 'refused',
      refusal: { kind: 'tooLarge', bytes, bytesMax: bytes - 1 },
    });
  });
});
