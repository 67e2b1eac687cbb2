import { setTimeout as pause } from 'node:timers/promises';
import type { World } from '../world/world.js';
import { doToDatabase } from './database.js';
import { type Fault, targetOf } from './fault.js';
import { doToNetwork } from './network.js';
import { doToProcess } from './processes.js';
import { killRabbitmq } from './rabbitmq.js';
import { TRANSACTIONS_PER_FAULT } from './schedule.js';

/*
 * Does the faults of a schedule, each when so many transactions were started. Several are at work
 * at a time, never two on one target. The producers may be ahead of it by a few faults and no more,
 * so that a schedule is never left over when the work is done.
 */

export interface DoneFault {
  number: number;
  /** Since the first transaction. */
  atMs: number;
  lastedMs: number;
  fault: Fault;
}

/** More would leave no way through the system, and nothing would be begun that a fault can hit. */
const AT_ONCE_MAX = 6;
/** The transactions that are under way while a fault is waited for. */
const FAULTS_AHEAD = 8;
const POLL_MS = 20;

export async function haunt(world: World, schedule: readonly Fault[]): Promise<DoneFault[]> {
  const startedAt = performance.now();
  const done: DoneFault[] = [];
  const atWork = new Map<string, Promise<void>>();
  for (const [index, fault] of schedule.entries()) {
    world.grant((index + FAULTS_AHEAD) * TRANSACTIONS_PER_FAULT);
    const target = targetOf(fault);
    while (
      world.started() < index * TRANSACTIONS_PER_FAULT ||
      atWork.size >= AT_ONCE_MAX ||
      atWork.has(target)
    ) {
      await pause(POLL_MS);
    }
    const atMs = Math.round(performance.now() - startedAt);
    const work = inflict(world, fault).then(() => {
      atWork.delete(target);
      const lastedMs = Math.round(performance.now() - startedAt) - atMs;
      done.push({ number: index, atMs, lastedMs, fault });
    });
    atWork.set(target, work);
  }
  await Promise.all(atWork.values());
  return done.sort((a, b) => a.number - b.number);
}

async function inflict(world: World, fault: Fault): Promise<void> {
  if ('link' in fault) return doToNetwork(world, fault);
  if ('process' in fault) return doToProcess(world, fault);
  if (fault.kind !== 'killServer') return doToDatabase(world, fault);
  const { kind, server } = fault;
  return server === 'rabbitmq' ? killRabbitmq(world) : doToDatabase(world, { kind, server });
}
