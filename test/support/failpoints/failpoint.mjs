/*
 * One failpoint of this process. ESCROW_TEST_FAILPOINT is JSON:
 *
 *   point    such as "store.insert:before"
 *   action   kill: SIGKILL for itself; stop: SIGSTOP, until somebody sends SIGCONT; throw: an error
 *   time     the how-manieth time that the point is reached @default 1
 *   folder   its file `armed` has to be there, or nothing counts; `reached` is written before the
 *            action, and then nothing happens any more, in a process that follows neither
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const given = process.env.ESCROW_TEST_FAILPOINT;
const failpoint = given === undefined ? undefined : { time: 1, ...JSON.parse(given) };
let times = 0;

/** Does what was asked for, if this is the point and the time. */
export function reach(point) {
  if (failpoint === undefined || failpoint.point !== point) return;
  const { action, time, folder } = failpoint;
  const reached = join(folder, 'reached');
  if (!existsSync(join(folder, 'armed')) || existsSync(reached)) return;
  times += 1;
  if (times < time) return;
  writeFileSync(reached, String(process.pid));
  if (action === 'throw') throw new Error(`the failpoint ${point} was reached`);
  process.kill(process.pid, action === 'kill' ? 'SIGKILL' : 'SIGSTOP');
}

/** Runs one durable step between its two points. */
export async function step(name, work) {
  reach(`${name}:before`);
  const result = await work();
  reach(`${name}:after`);
  return result;
}

/**
 * A port whose operations are steps: `{ insert: 'store.insert' }`. A function in the place of a name
 * is called with the operation instead.
 */
export function failing(port, steps) {
  return new Proxy(port, {
    get(target, property) {
      const value = Reflect.get(target, property, target);
      const named = Object.hasOwn(steps, property) ? steps[property] : undefined;
      if (named === undefined) return typeof value === 'function' ? value.bind(target) : value;
      const operation = value.bind(target);
      if (typeof named === 'function') return named(operation);
      return (...args) => step(named, () => operation(...args));
    },
  });
}
