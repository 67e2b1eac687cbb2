import { describe, expect, test } from '@jest/globals';
import { chosen, FlagError, parseFlags } from '../../bench/src/flags.js';
import { type CpuReading, cpuUsed } from '../../bench/src/measure/cpu.js';
import type { Run } from '../../bench/src/measure/load-process.js';
import { alternate, compare } from '../../bench/src/measure/pairs.js';
import { quantiles, summarize } from '../../bench/src/measure/quantiles.js';

const runAt = (perSecond: number): Run => ({
  operations: perSecond,
  seconds: 1,
  latencyMs: {},
  perSecond,
  cpuMicrosPerOperation: {},
  foreignCpuPercent: 0,
});

describe('quantiles', () => {
  test('are values that were measured, by nearest rank', () => {
    const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect(quantiles(hundred)).toEqual({ p50: 50, p90: 90, p99: 99, max: 100 });
  });

  test('sort by number and not by spelling', () => {
    expect(quantiles([9, 10, 100])).toMatchObject({ p50: 10, max: 100 });
  });

  test('of one value are that value', () => {
    expect(quantiles([7])).toEqual({ p50: 7, p90: 7, p99: 7, max: 7 });
  });

  test('of nothing are zero', () => {
    expect(quantiles([])).toEqual({ p50: 0, p90: 0, p99: 0, max: 0 });
  });
});

describe('a summary', () => {
  test('has the middle of an odd number of runs, and their range', () => {
    expect(summarize([30, 10, 20])).toEqual({ median: 20, min: 10, max: 30 });
  });

  test('has the mean of the two in the middle of an even number', () => {
    expect(summarize([40, 10, 30, 20]).median).toBe(25);
  });

  test('of nothing is refused', () => {
    expect(() => summarize([])).toThrow('nothing was measured');
  });
});

describe('contenders', () => {
  test('take turns, and each run counts for its own', async () => {
    const order: string[] = [];
    const contender = (name: string, perSecond: number) => ({
      name,
      run: async () => {
        order.push(name);
        return runAt(perSecond);
      },
    });
    const { of } = await alternate([contender('a', 100), contender('b', 40)], 2, () => {});
    expect(order).toEqual(['a', 'b', 'a', 'b']);
    expect(of('b').runs.map((run) => run.perSecond)).toEqual([40, 40]);
  });

  test('are compared within a round, since a slow moment slows all of it', () => {
    const { of } = compare([
      { name: 'limit', runs: [runAt(100), runAt(10), runAt(200)] },
      { name: 'ours', runs: [runAt(50), runAt(6), runAt(80)] },
    ]);
    // The medians alone would say 0.5, and the second round 0.06 of the first one's limit.
    expect(of('ours').ratio).toEqual({ median: 0.5, min: 0.4, max: 0.6 });
    expect(of('limit').ratio).toEqual({ median: 1, min: 1, max: 1 });
  });

  test('with fewer runs to compare with are refused', () => {
    const measured = [
      { name: 'limit', runs: [runAt(1)] },
      { name: 'ours', runs: [runAt(1), runAt(1)] },
    ];
    expect(() => compare(measured)).toThrow('round 2 has no run to compare with');
  });

  test('are found by name only', () => {
    expect(() => compare([{ name: 'a', runs: [runAt(1)] }]).of('b')).toThrow('"b"');
  });
});

describe('CPU time', () => {
  const before: CpuReading = {
    atMs: 1_000,
    busyMicros: 5_000_000,
    byName: { broker: 100_000, load: 40_000 },
    ownMicros: 10_000,
    endedChildrenMicros: 0,
  };

  test('is counted between two readings, and what is left of the busy time is foreign', () => {
    const after = {
      ...before,
      atMs: 2_000,
      busyMicros: 6_000_000,
      byName: { broker: 400_000, load: 240_000 },
      ownMicros: 30_000,
    };
    expect(cpuUsed(before, after)).toEqual({
      micros: { broker: 300_000, load: 200_000 },
      // A second of busy time, of which 300 + 200 + 20 ms are ours.
      foreignPercent: 48,
    });
  });

  test('of a load that has ended is found among the ended children', () => {
    const after = {
      ...before,
      atMs: 2_000,
      byName: { broker: 100_000, load: 0 },
      endedChildrenMicros: 240_000,
    };
    expect(cpuUsed(before, after).micros).toEqual({ broker: 0, load: 200_000 });
  });

  test('is never negative, whatever was restarted meanwhile', () => {
    const after = { ...before, atMs: 2_000, byName: { broker: 20_000, load: 40_000 } };
    expect(cpuUsed(before, after)).toEqual({ micros: { broker: 0, load: 0 }, foreignPercent: 0 });
  });
});

describe('flags', () => {
  test('have defaults, which others replace', () => {
    expect(parseFlags([])).toEqual({
      quick: false,
      only: undefined,
      rounds: 3,
      seconds: 3,
      warmUpSeconds: 15,
    });
    expect(
      parseFlags(['--quick', '--rounds', '7', '--seconds=0.5', '--warm-up', '2']),
    ).toMatchObject({ quick: true, rounds: 7, seconds: 0.5, warmUpSeconds: 2 });
    expect(parseFlags(['--quick'])).toMatchObject({ warmUpSeconds: 8 });
  });

  test.each([
    [['--fast'], '--fast'],
    [['everything'], 'everything'],
    [['--rounds', '0'], '--rounds is 0'],
    [['--rounds', '2.5'], '--rounds is 2.5'],
    [['--rounds', 'many'], '--rounds is "many"'],
    [['--seconds', ''], '--seconds is ""'],
    [['--seconds', '3600'], '--seconds is 3600'],
    [['--warm-up', '0'], '--warm-up is 0'],
  ])('%j are refused by name', (args, named) => {
    expect(() => parseFlags(args)).toThrow(FlagError);
    expect(() => parseFlags(args)).toThrow(named);
  });

  test('choose groups, and a choice of none lists what there is', () => {
    const groups = [
      { name: 'throughput-256', quick: true },
      { name: 'throughput-64', quick: false },
    ];
    const names = (flags: string[]) => chosen(groups, parseFlags(flags)).map(({ name }) => name);
    expect(names(['--only', '64'])).toEqual(['throughput-64']);
    expect(names(['--quick'])).toEqual(['throughput-256']);
    expect(() => names(['--quick', '--only', '64'])).toThrow('throughput-256');
  });
});
