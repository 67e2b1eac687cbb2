import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { spawnOwned } from '../measure/owned-child.js';
import type { RelaySettings } from './outbox-relay.js';

const RELAY = fileURLToPath(new URL('./outbox-relay.js', import.meta.url));
const DIE_WITH_PARENT = new URL('../measure/die-with-parent.js', import.meta.url);

export interface OutboxRelay {
  pid: number;
  /** Reads nothing until it is to work again; what it has begun, it ends. */
  rest(): void;
  work(): void;
  /** SIGTERM; resolves when it has ended. @throws Error when it had failed */
  stop(): Promise<void>;
}

/** Starts a relay as a process of its own; resolves when it is connected and reads the outbox. */
export async function startOutboxRelay(settings: RelaySettings): Promise<OutboxRelay> {
  const child = spawnOwned(
    [process.execPath, '--import', DIE_WITH_PARENT.href, RELAY, JSON.stringify(settings)],
    { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
  );
  const ended = once(child, 'exit');
  await Promise.race([
    once(child, 'message'),
    ended.then(([code]) => {
      throw new Error(`the outbox relay ended with exit code ${code} before it was ready`);
    }),
  ]);
  return {
    pid: child.pid ?? 0,
    rest: () => void child.send('rest'),
    work: () => void child.send('work'),
    async stop() {
      child.kill('SIGTERM');
      const [code, signal] = await ended;
      if (code !== 0) throw new Error(`the outbox relay ended with ${signal ?? `code ${code}`}`);
    },
  };
}
