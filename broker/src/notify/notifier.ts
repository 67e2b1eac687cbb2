import type { Consumer, ConsumerEvent, Message, SubscribeOptions } from '@escrowmq/consumer';
import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import type { Observer } from '../domain/ports.js';
import type { Webhook, WebhookStore } from '../domain/webhook.js';
import type { Unbinding } from './bindings.js';
import { type DeliverDeps, deliver } from './deliver.js';
import { type BreakerRules, createGate, type Gate, WAIT_MS_MAX } from './gate.js';
import { createGiveUps } from './give-ups.js';
import { type Running, reconcile } from './reconcile.js';

/*
 * Webhooks are consumers: each is a subscription of the consumer SDK with a queue, retry queues and
 * a dead-letter queue of its own, and its handler is one signed POST. So a slow or dead endpoint
 * holds up no other, several instances share the work, and a crash repeats a call and loses none.
 *
 * Every instance compares in passes what is stored with what it runs, and begins, changes and ends
 * subscriptions. What has to be unbound is tried again in each pass until RabbitMQ has done it; it
 * is known from the row as long as that is there, so a crash forgets none of it. After a webhook is
 * deleted, each instance that ran it unbinds once more: one that was reconnecting meanwhile may have
 * bound the queue again.
 */

export interface NotifierDeps<BreakerState> {
  /** Opened by the first subscription; this notifier closes it. */
  openConsumer(logger: (event: ConsumerEvent) => void): Consumer;
  store: Pick<WebhookStore, 'listWebhooks' | 'disableWebhook'>;
  post: DeliverDeps['post'];
  unbind(unbinding: Unbinding): Promise<void>;
  breaker: BreakerRules<BreakerState>;
  /** Subscriptions are begun while it is; those that run heal by themselves. */
  rabbitConnected(): boolean;
  /** Makes a pass follow soon. */
  wake(): void;
  /** The store's clock. */
  storeNow(): number;
  /** Monotonic milliseconds. */
  now(): number;
  observer: Observer;
}

export interface Notifier {
  /** One pass. Does not wait for the subscriptions that it begins and ends. */
  reconcileOnce(): Promise<void>;
  /**
   * Ends the webhook here and unbinds its queue; resolves with the queues that are left. To be
   * called for a webhook that is disabled. Rejects when RabbitMQ does not answer.
   */
  release(webhook: Webhook): Promise<string[]>;
  /** Ends all subscriptions: calls under way get a few seconds, then their messages come again. */
  stop(): Promise<void>;
}

/** A shutdown has ten seconds in all; a call that it cuts is made again, with the same id. */
const DRAIN_TIMEOUT_MS = 5_000;
/** Between the end of a call and that of the handler. */
const HANDLER_MARGIN_MS = 10_000;

interface Subscribed extends Running {
  gate: Gate;
  /** Resolves when it has ended; never rejects. */
  end(): Promise<void>;
}

const queueOf = ({ topic, consumerGroup }: Webhook) => queueName(topic, consumerGroup);

/** All queues of the webhook as it is now. */
function queuesOf({ topic, consumerGroup, settings }: Webhook): string[] {
  const delays = [...new Set(settings.retry.delaysMs)];
  return [
    queueName(topic, consumerGroup),
    ...delays.map((delayMs) => retryQueueName(topic, consumerGroup, delayMs)),
    deadLetterQueueName(topic, consumerGroup),
  ];
}

const allKeys = ({ settings, formerRoutingKeys }: Webhook): Unbinding['routingKeys'] => [
  ...settings.routingKeys,
  ...formerRoutingKeys,
];

function subscribeOptions({ topic, consumerGroup, settings }: Webhook): SubscribeOptions {
  return {
    topic,
    group: consumerGroup,
    routingKeys: settings.routingKeys,
    concurrency: settings.concurrency,
    retryDelaysMs: settings.retry.delaysMs,
    retryJitter: settings.retry.jitter,
    handlerTimeoutMs: WAIT_MS_MAX + settings.timeoutMs + HANDLER_MARGIN_MS,
    drainTimeoutMs: DRAIN_TIMEOUT_MS,
  };
}

export function createNotifier<State>(deps: NotifierDeps<State>): Notifier {
  const { store, observer } = deps;
  const running = new Map<string, Subscribed>();
  /** By webhook, what RabbitMQ has not unbound yet. */
  const unbindings = new Map<string, Unbinding>();
  const giveUps = createGiveUps({ observer, now: deps.now });
  let consumer: Consumer | undefined;
  let stopping = false;

  function hear(event: ConsumerEvent): void {
    switch (event.event) {
      case 'deadLettered': {
        const ours = [...running.values()].find(
          ({ webhook }) => webhook.topic === event.topic && webhook.consumerGroup === event.group,
        );
        if (ours !== undefined) giveUps.tell(ours.webhook, event);
        return;
      }
      case 'connectionLost':
      case 'publishingLost':
        observer.warn('webhooks lost RabbitMQ', { detail: event.cause }, event.event);
        return;
      case 'consumingLost':
      case 'settlingFailed':
        observer.warn(
          'webhook trouble',
          { kind: event.event, consumerGroup: event.group, detail: event.cause },
          `${event.event} of ${event.group}`,
        );
        return;
      default:
    }
  }

  function unbindLater(webhook: Webhook, routingKeys: Unbinding['routingKeys']): void {
    if (routingKeys.length === 0) return;
    const { name, topic } = webhook;
    unbindings.set(name, { topic, queue: queueOf(webhook), routingKeys });
    deps.wake();
  }

  async function disable({ name, revision, topic, consumerGroup }: Webhook, reason: string) {
    try {
      if (await store.disableWebhook({ name, revision, reason })) {
        observer.alert({
          kind: 'webhookDisabled',
          webhook: name,
          topic,
          consumerGroup,
          detail: reason,
        });
      }
    } catch (error) {
      // The next message is answered the same and tries again.
      observer.failed(`disabling the webhook ${name}`, error);
    }
    deps.wake();
  }

  function start(webhook: Webhook): void {
    consumer ??= deps.openConsumer(hear);
    const gate = createGate({ breaker: deps.breaker, now: deps.now });
    const here: Subscribed = { webhook, gate, ending: false, end };
    running.set(webhook.name, here);
    const handler = (message: Message) =>
      deliver(message, {
        gate,
        webhook: () => here.webhook,
        post: deps.post,
        disable,
        now: deps.storeNow,
        observer,
      });
    const subscribing = consumer.subscribe(subscribeOptions(webhook), handler);
    void subscribing.then(
      () => unbindLater(webhook, webhook.formerRoutingKeys),
      (error: unknown) => {
        // The next pass starts it again.
        running.delete(webhook.name);
        if (!stopping) observer.failed(`starting the webhook ${webhook.name}`, error);
      },
    );
    let ended: Promise<void> | undefined;

    async function endOnce(): Promise<void> {
      here.ending = true;
      gate.close();
      try {
        await (await subscribing).close();
      } catch (error) {
        if (running.get(webhook.name) === here) {
          observer.failed(`ending the webhook ${webhook.name}`, error);
        }
      }
      if (running.get(webhook.name) === here) running.delete(webhook.name);
      deps.wake();
    }
    function end(): Promise<void> {
      ended ??= endOnce();
      return ended;
    }
  }

  async function endDeleted(here: Subscribed): Promise<void> {
    await here.end();
    unbindLater(here.webhook, allKeys(here.webhook));
  }

  /** Not what the webhook wants by now: its keys may have changed again, or it was made anew. */
  async function unbindWaiting(stored: readonly Webhook[]): Promise<void> {
    for (const [name, unbinding] of unbindings) {
      const wanted = stored.find((webhook) => queueOf(webhook) === unbinding.queue);
      const routingKeys = unbinding.routingKeys.filter(
        (key) => wanted?.settings.routingKeys.includes(key) !== true,
      );
      if (routingKeys.length > 0) await deps.unbind({ ...unbinding, routingKeys });
      if (unbindings.get(name) === unbinding) unbindings.delete(name);
    }
  }

  return {
    async reconcileOnce() {
      giveUps.tellWaiting();
      const stored = await store.listWebhooks();
      const connected = deps.rabbitConnected();
      for (const action of reconcile(stored, running)) {
        if (stopping) return;
        const here = running.get(action.kind === 'end' ? action.name : action.webhook.name);
        if (action.kind === 'start' && connected) start(action.webhook);
        if (action.kind === 'refresh' && here !== undefined) here.webhook = action.webhook;
        if (action.kind === 'end' && here !== undefined) {
          void (action.deleted ? endDeleted(here) : here.end());
        }
      }
      if (connected) await unbindWaiting(stored);
    },
    async release(webhook) {
      await running.get(webhook.name)?.end();
      await deps.unbind({
        topic: webhook.topic,
        queue: queueOf(webhook),
        routingKeys: allKeys(webhook),
      });
      return queuesOf(webhook);
    },
    async stop() {
      stopping = true;
      for (const { gate } of running.values()) gate.close();
      await consumer?.close();
    },
  };
}
