import { expect, test } from '@jest/globals';
import type { Fault } from '../../soak/src/nemesis/fault.js';
import { FAULTS_PER_KIND_MIN, scheduleOf } from '../../soak/src/nemesis/schedule.js';
import { faultsByKind, notReached } from '../../soak/src/reach.js';
import { jobOf } from '../../soak/src/services/jobs.js';

const plan = { seed: 1, transactions: 12_000, restarts: false };
const asDone = (faults: Fault[]) =>
  faults.map((fault, number) => ({ number, atMs: 0, lastedMs: 0, fault }));

test('the same seed is the same schedule and the same work, another seed is another', () => {
  expect(scheduleOf(plan)).toEqual(scheduleOf(plan));
  expect(scheduleOf(plan)).not.toEqual(scheduleOf({ ...plan, seed: 2 }));
  expect(jobOf(1, 'producer-1', 7)).toEqual(jobOf(1, 'producer-1', 7));
  expect(jobOf(1, 'producer-1', 7)).not.toEqual(jobOf(1, 'producer-2', 7));
});

test('a longer run begins with the faults of a shorter one', () => {
  const shorter = scheduleOf({ ...plan, transactions: 2_000 });
  expect(scheduleOf(plan).slice(0, shorter.length)).toEqual(shorter);
});

test.each([1, 2, 3, 4, 5])('a full run has every kind often enough, with seed %i', (seed) => {
  const schedule = scheduleOf({ ...plan, seed });
  expect(schedule).toHaveLength(240);
  for (const count of Object.values(faultsByKind(asDone(schedule)))) {
    expect(count).toBeGreaterThanOrEqual(FAULTS_PER_KIND_MIN);
  }
});

test('with restarts each server is killed ten times', () => {
  const schedule = scheduleOf({ ...plan, restarts: true });
  for (const server of ['store', 'services', 'rabbitmq']) {
    const kills = schedule.filter(
      (fault) => fault.kind === 'killServer' && fault.server === server,
    );
    expect(kills).toHaveLength(10);
  }
});

const bitten = {
  transactions: 12_000,
  accepted: 12_000,
  faults: asDone(scheduleOf(plan)),
  ambiguousCommits: 1,
  unknownAnswers: 1,
  duplicates: 1,
  decidedByCheck: 600,
};

test('a run whose faults all bit has reached what it was made for', () => {
  expect(notReached(bitten)).toEqual([]);
});

test.each([
  ['no COMMIT was cut off', { ambiguousCommits: 0 }],
  ['no check was answered with unknown', { unknownAnswers: 0 }],
  ['no message came twice', { duplicates: 0 }],
  ['checks decided 3 of 12000 transactions', { decidedByCheck: 3 }],
  ['239 of 240 faults were done', { faults: bitten.faults.slice(1) }],
])('%s: the faults did not bite', (said, lack) => {
  expect(notReached({ ...bitten, ...lack })).toContain(said);
});

test('a kind of fault that did not come is named', () => {
  const faults = bitten.faults.filter(({ fault }) => fault.kind !== 'readOnly');
  expect(notReached({ ...bitten, faults })).toContain('readOnly came 0 times, not 10');
});
