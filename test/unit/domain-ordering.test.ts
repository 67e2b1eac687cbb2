import { expect, test } from '@jest/globals';
import { ORDERING_SLOTS, orderingSlotOf } from '../../protocol/src/ordering.js';

test('the slot of a key stays what it was, or messages of one key would stand in two queues', () => {
  expect(orderingSlotOf('user', 'user-7')).toBe(9);
  expect(orderingSlotOf('orders', 'phone:13800000000')).toBe(3);
  expect(orderingSlotOf('user', 'ü')).toBe(14);
});

test.each([
  ['numbers in a row', (n: number) => String(n)],
  ['names that end in a number', (n: number) => `user-${n}`],
  ['ids that differ in their last digits', (n: number) => `0198f3c2-7a10-${n.toString(16)}`],
])('%s spread over all slots', (_what, keyOf) => {
  const perSlot = Array<number>(ORDERING_SLOTS).fill(0);
  for (let n = 0; n < 1000 * ORDERING_SLOTS; n += 1) {
    const slot = orderingSlotOf('user', keyOf(n));
    perSlot[slot] = (perSlot[slot] ?? 0) + 1;
  }
  expect(Math.min(...perSlot)).toBeGreaterThan(800);
  expect(Math.max(...perSlot)).toBeLessThan(1200);
});
