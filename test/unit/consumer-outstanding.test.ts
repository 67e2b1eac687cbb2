import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, expect, test } from '@jest/globals';
import type { Channel, ConsumeMessage } from 'amqplib';
import fc from 'fast-check';
import type { Delivery } from '../../consumer-sdk/src/delivery/delivery.js';
import { Outstanding } from '../../consumer-sdk/src/delivery/outstanding.js';

/** RabbitMQ's side of one channel: what is out, and an error over a tag that is not. */
function rabbitSide() {
  const out = new Set<number>();
  const frames: string[] = [];
  const settle = (tag: number, isMultiple: boolean) => {
    if (!out.has(tag)) throw new Error(`PRECONDITION_FAILED - unknown delivery tag ${tag}`);
    for (const other of [...out])
      if (other === tag || (isMultiple && other < tag)) out.delete(other);
  };
  const channel = {
    ack({ fields }: ConsumeMessage, allUpTo = false) {
      frames.push(`ack ${allUpTo ? 'to ' : ''}${fields.deliveryTag}`);
      settle(fields.deliveryTag, allUpTo);
    },
    nack({ fields }: ConsumeMessage) {
      frames.push(`nack ${fields.deliveryTag}`);
      settle(fields.deliveryTag, false);
    },
  };
  const watched = { isOpen: true };
  let finished = 0;
  const outstanding = new Outstanding(channel as unknown as Channel, watched as never, {
    finished: () => {
      finished += 1;
    },
    repair: async () => {},
  });
  let tag = 0;
  return {
    out,
    frames,
    watched,
    outstanding,
    finished: () => finished,
    deliver(): Delivery {
      tag += 1;
      out.add(tag);
      return outstanding.add({ fields: { deliveryTag: tag } } as ConsumeMessage);
    },
  };
}

let side: ReturnType<typeof rabbitSide>;
beforeEach(() => {
  side = rabbitSide();
});

test('what is settled in one turn of the event loop without a gap is acknowledged by one frame', async () => {
  const deliveries = [1, 2, 3, 4].map(() => side.deliver());
  for (const n of [2, 0, 1]) deliveries[n]!.ack();
  expect(side.frames).toEqual([]);
  await nextTurn();
  expect(side.frames).toEqual(['ack to 3']);
});

test('what is settled behind a message that is not is acknowledged all the same', async () => {
  const [slow, ...others] = [1, 2, 3].map(() => side.deliver());
  for (const other of others) other.ack();
  await nextTurn();
  expect(side.frames).toEqual(['ack 2', 'ack 3']);
  slow!.ack();
  await nextTurn();
  expect(side.frames).toEqual(['ack 2', 'ack 3', 'ack to 1']);
});

test('a message that was given up is not acknowledged with those behind it', async () => {
  const [first, second] = [side.deliver(), side.deliver()];
  first.giveUp();
  second.ack();
  await nextTurn();
  expect([...side.out]).toEqual([1]);
});

test('nothing is sent on a channel that is closed', async () => {
  side.deliver().ack();
  side.watched.isOpen = false;
  await nextTurn();
  side.deliver().requeue();
  expect(side.frames).toEqual([]);
  expect(side.finished()).toBe(2);
});

test('abandoning tells what is not settled, and only that', () => {
  const [settled, running, other] = [side.deliver(), side.deliver(), side.deliver()];
  settled.ack();
  // As a handler's end does: the list loses the one that is told, while it is walked.
  running.abandoned.onStop(() => running.requeue());
  side.outstanding.abandon(new Error('lost'));
  expect([settled, running, other].map(({ abandoned }) => abandoned.isStopped)).toEqual([
    false,
    true,
    true,
  ]);
});

type Step = 'deliver' | 'flush' | { end: 'ack' | 'requeue' | 'giveUp'; which: number };
const step = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Step>('deliver') },
  { weight: 1, arbitrary: fc.constant<Step>('flush') },
  {
    weight: 4,
    arbitrary: fc.record({
      end: fc.constantFrom('ack' as const, 'ack' as const, 'requeue' as const, 'giveUp' as const),
      which: fc.nat(20),
    }),
  },
);

test('whatever is settled in whatever order, RabbitMQ keeps just what was not settled', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { deliver, outstanding, out } = rabbitSide();
      const open: Delivery[] = [];
      const kept = new Set<number>();
      for (const next of steps) {
        if (next === 'deliver') open.push(deliver());
        else if (next === 'flush') outstanding.flush();
        else {
          const [delivery] = open.splice(next.which % Math.max(1, open.length), 1);
          delivery?.[next.end]();
          if (delivery && next.end === 'giveUp') kept.add(delivery.original.fields.deliveryTag);
        }
      }
      outstanding.flush();
      for (const { original } of open) kept.add(original.fields.deliveryTag);
      expect(new Set(out)).toEqual(kept);
    }),
    { numRuns: 500 },
  );
});
