import { setTimeout as pause } from 'node:timers/promises';
import { mysqlStatement } from '@escrowmq/local-servers';
import type { World } from '../world/world.js';
import { type Fault, LINKS, type LinkKind } from './fault.js';

/* Faults of the network, done to one link. Each resolves when the link is whole again. */

type NetworkFault = Extract<Fault, { link: unknown }>;

/**
 * The moment that matters: a COMMIT of a local transaction, the guarded update or the COMMIT of a
 * broker, a call with prepares and verdicts.
 */
const MOMENTS: Partial<Record<LinkKind, RegExp>> = {
  toDatabase: mysqlStatement('commit'),
  toStore: mysqlStatement('commit|update\\s+escrow_transaction'),
  toBroker: /POST \/v1\//,
};

export async function doToNetwork(world: World, fault: NetworkFault): Promise<void> {
  const proxy = world.proxies[fault.link];
  switch (fault.kind) {
    case 'cut':
      proxy.cut();
      return;
    case 'blackHole':
      proxy.impair({ kind: 'blackHole' });
      break;
    case 'delay':
      proxy.impair({ kind: 'delay', ms: fault.eachMs });
      break;
    case 'throttle':
      proxy.impair({ kind: 'throttle', bytesPerSecond: fault.bytesPerSecond });
      break;
    case 'cutAtCommit': {
      const pattern = MOMENTS[LINKS[fault.link]];
      if (pattern === undefined) throw new Error(`${fault.link} has no moment to cut at`);
      const { when, cuts } = fault;
      proxy.arm({ pattern, when, cuts, struck: () => world.struck(fault.link) });
      break;
    }
  }
  await pause(fault.ms);
  proxy.heal();
}
