import { BREAKER_LIMITS, beginCall, CLOSED, callFailed, shutUntil } from './callback/breaker.js';
import type { CallbackPolicy } from './callback/callback-policy.js';
import { createGuardedAgent } from './callback/guarded-agent.js';
import { newSigningSecret, signatureHeaders } from './callback/signature.js';
import { describeFailure } from './callback/signed-call.js';
import type { Observer, RabbitStatus, Store } from './domain/ports.js';
import { startLoop } from './engine/loop.js';
import { createWebhooks, type Webhooks } from './engine/webhooks.js';
import { unbind } from './notify/bindings.js';
import { createNotifier } from './notify/notifier.js';
import { openConsumer } from './notify/open-consumer.js';
import { post } from './notify/post.js';

/** What another instance has changed is seen this much later; what was changed here, at once. */
const POLL_MS = 5_000;

export interface WebhooksDeps {
  store: Store;
  rabbitmqUrl: string;
  rabbit: { readonly status: RabbitStatus; onReady(callback: () => void): void };
  callbackPolicy: CallbackPolicy;
  /** The store's clock. */
  clock: { now(): number };
  observer: Observer;
}

/**
 * Webhooks from the store to the endpoints. Starts nothing that another part waits for: while
 * RabbitMQ or an endpoint is away, messages wait in their queues.
 */
export function startWebhooks(deps: WebhooksDeps): { api: Webhooks; stop(): Promise<void> } {
  const { store, rabbitmqUrl, rabbit, callbackPolicy, clock, observer } = deps;
  const agent = createGuardedAgent(callbackPolicy);
  const urlProblem = (url: string) => callbackPolicy.checkUrlProblem(url);
  const storeNow = () => clock.now();
  const failed: Observer['failed'] = (what, error) => observer.failed(what, error);
  const postParts = {
    agent: agent.dispatcher,
    urlProblem,
    sign: signatureHeaders,
    describeFailure,
    failed,
    storeNow,
  };
  const notifier = createNotifier({
    openConsumer: (logger) => openConsumer(rabbitmqUrl, logger),
    store,
    post: (call) => post(call, postParts),
    unbind: (unbinding) => unbind(rabbitmqUrl, unbinding),
    breaker: {
      closed: CLOSED,
      shutUntil,
      begin: beginCall,
      failed: (breaker, call) => callFailed(breaker, call, BREAKER_LIMITS),
    },
    rabbitConnected: () => rabbit.status !== 'disconnected',
    wake: () => loop.wake(),
    storeNow,
    now: () => performance.now(),
    observer,
  });
  const loop = startLoop({
    name: 'keep the webhooks',
    pass: async () => notifier.reconcileOnce().then(() => false),
    idleMs: POLL_MS,
    observer,
  });
  rabbit.onReady(() => loop.wake());
  return {
    api: createWebhooks({
      store,
      urlProblem,
      newSigningSecret,
      changed: () => loop.wake(),
      release: (webhook) => notifier.release(webhook),
      failed,
    }),
    async stop() {
      await loop.stop();
      await notifier.stop();
      await agent.close();
    },
  };
}
