import type { Config } from './config.js';
import type { HttpDeps } from './http/deps.js';
import { listenOn } from './http/listen.js';
import { createHttpServer } from './http/server.js';
import type { StoreStanding } from './store-standing.js';

/** What is served from the first moment on: the probes. */
type Probes = Pick<HttpDeps, 'readiness' | 'metrics' | 'observer'>;
export type Api = Omit<HttpDeps, keyof Probes>;

export interface FrontDoor {
  /** Where it serves, such as http://127.0.0.1:7171 */
  address: string;
  /** From now on everything else is served as well. */
  serve(api: Api): void;
  close(): Promise<void>;
}

/**
 * The HTTP side, which listens before there is a store: whoever supervises the broker sees that it
 * lives and waits, and does not restart it. Until `serve`, all but the probes is 503.
 */
export async function openFrontDoor(
  config: Pick<Config, 'apiKeys' | 'transactionBytesMax' | 'listen'>,
  { standing, ...probes }: Probes & { standing: Pick<StoreStanding, 'notYet'> },
): Promise<FrontDoor> {
  const { apiKeys, transactionBytesMax } = config;
  // The rest is there before the first request that may use it: `closedBecause` refuses those before.
  const deps = { ...probes } as HttpDeps;
  let serving = false;
  const closedBecause = () => (serving ? undefined : standing.notYet());
  const http = createHttpServer(deps, { apiKeys, transactionBytesMax, closedBecause });
  return {
    address: await listenOn(http, config.listen),
    serve(api) {
      Object.assign(deps, api);
      serving = true;
    },
    close: () => http.close(),
  };
}
