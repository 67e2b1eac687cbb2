import type { ServerResponse } from 'node:http';
import { EscrowError } from '@escrowmq/protocol';

/** Why a wait ended early, when it was the caller who hung up. */
export class ClientGone extends Error {
  override readonly name = 'ClientGone';
}

export interface Shutdown {
  readonly begun: boolean;
  /** From here on new requests are refused, and waits end. */
  begin(): void;
  /** Aborts when the caller hangs up (`ClientGone`) or the shutdown begins (`SHUTTING_DOWN`). */
  untilGone(response: ServerResponse): AbortSignal;
}

export const shuttingDown = () =>
  new EscrowError(
    'SHUTTING_DOWN',
    'the broker is shutting down; ask again, or ask another instance',
  );

export function createShutdown(): Shutdown {
  let begun = false;
  const waits = new Set<AbortController>();
  return {
    get begun() {
      return begun;
    },
    begin() {
      begun = true;
      for (const wait of waits) wait.abort(shuttingDown());
    },
    untilGone(response) {
      const wait = new AbortController();
      waits.add(wait);
      // `close` comes in any case: after the answer too, when the wait is over anyway.
      response.once('close', () => {
        waits.delete(wait);
        wait.abort(new ClientGone('the caller hung up before the answer'));
      });
      if (begun) wait.abort(shuttingDown());
      return wait.signal;
    },
  };
}
