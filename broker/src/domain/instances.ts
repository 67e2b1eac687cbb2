import type { StoreTime } from './transaction.js';

/*
 * Broker instances of one store, of more than one version while they are upgraded one by one. Each
 * writes its version down in the store; a newer one refuses to do there what a living older one
 * would not understand. 0.1 wrote nothing down, so its instances all stop first.
 */

/** One broker process, as it wrote itself down. */
export interface Instance {
  id: string;
  version: string;
  host: string;
  startedAt: StoreTime;
  seenAt: StoreTime;
}

/** How often an instance says that it lives. */
export const HEARTBEAT_MS = 10_000;

/** Three heartbeats and a pause of the store: who has said nothing for longer is dead, or will be. */
export const LIVING_MS = 35_000;

export interface InstanceStore {
  /** Writes that it lives, now; removes those that have said nothing for `LIVING_MS`. */
  heartbeat(instance: Pick<Instance, 'id' | 'version' | 'host'>): Promise<void>;
  livingInstances(): Promise<Instance[]>;
  /** For one that stops: nobody needs to wait for it. */
  removeInstance(id: string): Promise<void>;
}

const VERSION = /^(\d+)\.(\d+)\.(\d+)/;

/** Whether `version` is older than `needed`; one that can not be read counts as older. */
export function isOlder(version: string, needed: string): boolean {
  const own = VERSION.exec(version)?.slice(1).map(Number);
  const other = VERSION.exec(needed)?.slice(1).map(Number);
  if (own === undefined || other === undefined) return true;
  const at = own.findIndex((part, index) => part !== other[index]);
  return at >= 0 && (own[at] ?? 0) < (other[at] ?? 0);
}

/**
 * Why something that only brokers from `needed` on understand must not be done yet: the instances
 * that would not, by host and version, and what to do. `undefined` when all that live understand it.
 */
export function tooOldFor(
  what: string,
  needed: string,
  living: readonly Pick<Instance, 'version' | 'host'>[],
): string | undefined {
  const older = living.filter(({ version }) => isOlder(version, needed));
  if (older.length === 0) return undefined;
  const named = [...new Set(older.map(({ host, version }) => `${version} on ${host}`))].join(', ');
  return `${what} needs every broker of this store to be ${needed} or newer, and there lives ${named}: stop or upgrade that one; one that was killed counts as living for ${LIVING_MS / 1000} s`;
}
