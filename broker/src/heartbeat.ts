import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { VERSION } from '@escrowmq/protocol';
import { HEARTBEAT_MS, type InstanceStore } from './domain/instances.js';
import type { Observer } from './domain/ports.js';
import { startLoop } from './engine/loop.js';

/**
 * Says in the store, every ten seconds, that this instance lives and of which version it is. A crash
 * leaves a row that counts for 35 seconds; a stop takes its own away.
 */
export function startHeartbeat({ store, observer }: { store: InstanceStore; observer: Observer }): {
  stop(): Promise<void>;
} {
  const instance = { id: randomUUID(), version: VERSION, host: hostname() };
  const loop = startLoop({
    name: 'say that this instance lives',
    pass: () => store.heartbeat(instance).then(() => false),
    idleMs: HEARTBEAT_MS,
    observer,
  });
  return {
    async stop() {
      await loop.stop();
      try {
        await store.removeInstance(instance.id);
      } catch (error) {
        // It counts as living for a while, as after a crash.
        observer.failed('removing this instance from the store', error);
      }
    },
  };
}
