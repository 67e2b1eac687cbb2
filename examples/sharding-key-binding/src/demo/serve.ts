import type { FromChild, ToChild } from './messages.js';

/** What runs in a process of the demo. */
export interface Serving {
  url?: string;
  /** The demo said "go on". */
  goOn?(): void;
  close(): Promise<void>;
}

export function tell(message: FromChild): void {
  process.send?.(message);
}

/** Waits for the settings, starts, tells the demo, and ends in order on SIGTERM. */
export function serve<Settings>(start: (settings: Settings) => Promise<Serving>): void {
  let serving: Serving | undefined;
  // Until the settings are here there is nothing else that keeps this process alive, and a
  // listener alone does not since Node 22: die-with-parent.ts has let go of the channel.
  process.channel?.ref();
  process.on('message', (message: ToChild<Settings>) => {
    if (message.type === 'goOn') serving?.goOn?.();
    else void begin(message.settings);
  });
  process.once('SIGTERM', () => void end());

  async function begin(settings: Settings): Promise<void> {
    try {
      serving = await start(settings);
      tell(serving.url === undefined ? { type: 'ready' } : { type: 'ready', url: serving.url });
    } catch (error) {
      tell({ type: 'failed', message: error instanceof Error ? error.message : String(error) });
    }
  }

  async function end(): Promise<void> {
    await serving?.close();
    process.exit(0);
  }
}
