import type { RabbitStatus } from './domain/ports.js';
import type { RabbitProblems } from './rabbit/open-rabbit.js';
import type { StoreStanding } from './store-standing.js';

export interface Readiness {
  read(): Promise<{ ready: boolean; degraded: boolean; checks: Record<string, string> }>;
  /** From now on not ready: nothing new should come here. */
  stopping(): void;
}

/** RabbitMQ being away, or refusing the broker its queue, leaves the broker ready: it goes on accepting, and forwards later. */
export function createReadiness(deps: {
  store: Pick<StoreStanding, 'trouble'>;
  rabbit(): { readonly status: RabbitStatus; readonly problems: RabbitProblems };
}): Readiness {
  let isStopping = false;
  return {
    async read() {
      const trouble = await deps.store.trouble();
      const { status, problems } = deps.rabbit();
      const { connection, receipts } = problems;
      return {
        ready: trouble === undefined && !isStopping,
        degraded: status !== 'connected' || receipts !== undefined,
        checks: {
          store: trouble ?? 'ok',
          rabbitmq: status,
          ...(connection === undefined ? {} : { rabbitmqProblem: connection }),
          receipts: receipts ?? 'ok',
          shutdown: isStopping ? 'under way' : 'no',
        },
      };
    },
    stopping() {
      isStopping = true;
    },
  };
}
