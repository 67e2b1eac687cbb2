import type { Publisher, Store } from './domain/ports.js';
import type { RabbitProblems } from './rabbit/open-rabbit.js';

export interface Readiness {
  read(): Promise<{ ready: boolean; degraded: boolean; checks: Record<string, string> }>;
  /** From now on not ready: nothing new should come here. */
  stopping(): void;
}

/** A probe gives up after a second or two; a store that needs longer serves nobody. */
const STORE_ANSWER_MS_MAX = 2_000;

/** RabbitMQ being away, or refusing the broker its queue, leaves the broker ready: it goes on accepting, and forwards later. */
export function createReadiness(deps: {
  store: Pick<Store, 'now'>;
  rabbit: Pick<Publisher, 'status'> & { readonly problems: RabbitProblems };
}): Readiness {
  let isStopping = false;

  async function storeAnswers(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), STORE_ANSWER_MS_MAX);
    });
    const answer = deps.store.now().then(
      () => true,
      () => false,
    );
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  }

  return {
    async read() {
      const store = await storeAnswers();
      const { status, problems } = deps.rabbit;
      const { connection, receipts } = problems;
      return {
        ready: store && !isStopping,
        degraded: status !== 'connected' || receipts !== undefined,
        checks: {
          store: store ? 'ok' : 'does not answer',
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
