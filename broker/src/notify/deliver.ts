import { type Message, PermanentError, RetryLater } from '@escrowmq/consumer';
import type { Observer } from '../domain/ports.js';
import type { Webhook } from '../domain/webhook.js';
import type { Gate } from './gate.js';
import type { Outcome } from './outcome.js';

/*
 * One message of a webhook, as a consumer of its group: at most one call, and what is thrown says
 * what becomes of it.
 *
 *   delivered            consumed; the message is acknowledged
 *   failed               retry queue, one attempt spent; after the last one the dead-letter queue
 *   failed, and too old  dead-letter queue
 *   later, gone, shut    postponed: a retry queue, no attempt spent
 *
 * A crash after the endpoint has taken a message and before it is acknowledged brings it again, with
 * the same `webhook-id`.
 */

export interface DeliverDeps {
  gate: Gate;
  /** As it is stored now: secrets change while a subscription runs. */
  webhook(): Webhook;
  post(call: { webhook: Webhook; message: Message; signal: AbortSignal }): Promise<Outcome>;
  /** Stops calls to it everywhere; resolves when that is stored, or will be tried again. */
  disable(webhook: Webhook, reason: string): Promise<void>;
  /** The store's clock. */
  now(): number;
  observer: Pick<Observer, 'count' | 'info' | 'warn'>;
}

/** How soon a message comes back for a webhook that is being disabled: then it stays in its queue. */
const GONE_MS = 1_000;

/**
 * Whether its time is over, counted from when an endpoint could have taken it: a message that waits
 * for its time grows no older. One that was moved back from the dead letters has all its attempts
 * again, and with the time of its first life it would not get a second one.
 */
function isTooOld(message: Message, webhook: Webhook, now: number): boolean {
  if (message.returned) return false;
  const since = Math.max(message.preparedAt, message.dueAt ?? 0, webhook.enabledAt);
  return now - since > webhook.settings.giveUpAfterMs;
}

/** Resolves when the endpoint has taken the message. */
export async function deliver(message: Message, deps: DeliverDeps): Promise<void> {
  const { gate, observer } = deps;
  const webhook = deps.webhook();
  const { name, settings } = webhook;
  const tooOld = isTooOld(message, webhook, deps.now());
  const count = (result: string) => observer.count('webhookCalls', { webhook: name, result });

  function fail(detail: string): never {
    // One that is given up is counted when its dead letter is confirmed.
    if (tooOld) throw new PermanentError(`older than ${settings.giveUpAfterMs} ms: ${detail}`);
    count('failed');
    throw new Error(detail);
  }
  function later(afterMs: number, detail: string): never {
    count('postponed');
    throw new RetryLater(afterMs, detail);
  }

  const entry = await gate.enter({ impatient: tooOld, signal: message.signal });
  if (entry.kind === 'shut') {
    return tooOld && entry.failing ? fail(entry.detail) : later(entry.forMs, entry.detail);
  }
  const outcome = await deps.post({ webhook, message, signal: message.signal });
  const change = gate.done({
    probe: entry.probe,
    ...(outcome.kind === 'failed' ? { failure: outcome.detail } : {}),
    ...(outcome.kind === 'later' ? { holdMs: outcome.afterMs } : {}),
  });
  if (change === 'opened' && outcome.kind === 'failed') {
    observer.info('webhook stopped answering', { webhook: name, detail: outcome.detail });
  }
  if (outcome.kind === 'failed') {
    const facts = { webhook: name, messageId: message.id, detail: outcome.detail };
    observer.warn('a call of a webhook failed and is made again', facts, name);
  }
  if (change === 'closed') observer.info('webhook answers again', { webhook: name });
  switch (outcome.kind) {
    case 'delivered':
      count('delivered');
      return;
    case 'gone':
      gate.close();
      await deps.disable(webhook, 'the endpoint answered HTTP 410');
      return later(GONE_MS, 'HTTP 410: the webhook is disabled');
    case 'later':
      return tooOld ? fail(outcome.detail) : later(outcome.afterMs, outcome.detail);
    case 'failed':
      return fail(outcome.detail);
  }
}
