import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Lanes } from '../../consumer-sdk/src/ordered/lanes.js';
import { type Permit, Semaphore } from '../../consumer-sdk/src/ordered/semaphore.js';
import { type Deferred, deferred, whatIsReady } from '../support/ready.js';

/** A piece of work that goes on when the test says so: it runs, waits, runs, waits …, and ends. */
interface Piece {
  key: string;
  /** Of those of its key, from 0. */
  number: number;
  now: 'added' | 'running' | 'waiting' | 'asking' | 'done';
  /** How often it still waits. */
  waits: number;
  goOn: Deferred<void>;
}

function laneBench(permits: number) {
  const lanes = new Lanes(new Semaphore(permits));
  const pieces: Piece[] = [];
  const of = (key: string) => pieces.filter((piece) => piece.key === key);
  const inState = (...states: Piece['now'][]) => pieces.filter(({ now }) => states.includes(now));

  async function doWork(piece: Piece, permit: Permit): Promise<void> {
    for (;;) {
      piece.now = 'running';
      await piece.goOn.promise;
      if (piece.waits === 0) break;
      piece.waits -= 1;
      piece.now = 'waiting';
      piece.goOn = deferred();
      await permit.whileIn(piece.goOn.promise);
      piece.goOn = deferred();
    }
    piece.now = 'done';
  }

  return {
    lanes,
    pieces,
    of,
    inState,
    goOn(piece: Piece): void {
      if (piece.now === 'waiting') piece.now = 'asking';
      piece.goOn.resolve();
    },
    add(key: string, waits = 0): Piece {
      const piece: Piece = {
        key,
        number: of(key).length,
        now: 'added',
        waits,
        goOn: deferred(),
      };
      pieces.push(piece);
      lanes.add(key, (permit) => doWork(piece, permit));
      return piece;
    },
  };
}

test('the work of a key is done in its order, one at a time, and nobody waits without need', async () => {
  const steps = fc.array(
    fc.oneof(
      fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd'), waits: fc.nat({ max: 2 }) }),
      // Which of those that are under way goes on.
      fc.nat({ max: 20 }),
    ),
    { minLength: 1, maxLength: 40 },
  );
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 3 }), steps, async (permits, given) => {
      const bench = laneBench(permits);
      const underWay = () => bench.inState('running', 'waiting');
      const check = async () => {
        await whatIsReady();
        const running = bench.inState('running').length;
        expect(running).toBeLessThanOrEqual(permits);
        let blocked = 0;
        for (const key of ['a', 'b', 'c', 'd']) {
          const mine = bench.of(key);
          const done = mine.filter(({ now }) => now === 'done').length;
          // Done from the front, then at most one under way, then those that wait for their turn.
          expect(mine.slice(0, done).every(({ now }) => now === 'done')).toBe(true);
          expect(mine.slice(done + 1).every(({ now }) => now === 'added')).toBe(true);
          if (mine[done]?.now === 'added' || mine[done]?.now === 'asking') blocked += 1;
        }
        // A key waits for a permit only when all are held.
        if (blocked > 0) expect(running).toBe(permits);
      };
      for (const step of given) {
        if (typeof step === 'object') bench.add(step.key, step.waits);
        else {
          const candidates = underWay();
          if (candidates.length > 0) bench.goOn(candidates[step % candidates.length]!);
        }
        await check();
      }
      while (underWay().length > 0) {
        bench.goOn(underWay()[0]!);
        await check();
      }
      expect(bench.pieces.every(({ now }) => now === 'done')).toBe(true);
      expect(bench.lanes.size).toBe(0);
    }),
    { numRuns: 100 },
  );
});

test('a key that waits for its next attempt lets another key run, and keeps its own back', async () => {
  const bench = laneBench(1);
  const first = bench.add('a', 1);
  const second = bench.add('a');
  const other = bench.add('b');
  await whatIsReady();
  expect([first.now, other.now]).toEqual(['running', 'added']);
  bench.goOn(first);
  await whatIsReady();
  expect([first.now, second.now, other.now]).toEqual(['waiting', 'added', 'running']);
  bench.goOn(first);
  await whatIsReady();
  // Its pause is over, and the only permit is with the other key.
  expect([first.now, other.now]).toEqual(['asking', 'running']);
  bench.goOn(other);
  await whatIsReady();
  expect([first.now, second.now]).toEqual(['running', 'added']);
});

test('a long lane gives way to other keys after each message', async () => {
  const bench = laneBench(1);
  const [one, two] = [bench.add('a'), bench.add('a')];
  const other = bench.add('b');
  await whatIsReady();
  bench.goOn(one);
  await whatIsReady();
  expect([one.now, two.now, other.now]).toEqual(['done', 'added', 'running']);
});
