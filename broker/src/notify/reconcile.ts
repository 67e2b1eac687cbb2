import type { Webhook } from '../domain/webhook.js';

/*
 * Which subscriptions an instance should begin and end, by what is stored and what runs here: a
 * pure decision, made anew in each pass. Whatever changed a row, and wherever, is seen so.
 */

/** One subscription of this instance, from its first attempt until it has ended. */
export interface Running {
  webhook: Webhook;
  ending: boolean;
}

export type Action =
  | { kind: 'start'; webhook: Webhook }
  /** Other secrets or another revision: nothing that a subscription was made with. */
  | { kind: 'refresh'; webhook: Webhook }
  /** `deleted`: its queue is to be unbound afterwards. */
  | { kind: 'end'; name: string; deleted: boolean };

export function reconcile(
  stored: readonly Webhook[],
  running: ReadonlyMap<string, Running>,
): Action[] {
  const byName = new Map(stored.map((webhook) => [webhook.name, webhook]));
  const ends = [...running].flatMap(([name, { webhook, ending }]): Action[] => {
    const now = byName.get(name);
    if (ending || (now !== undefined && goesOn(webhook, now))) return [];
    return [{ kind: 'end', name, deleted: now === undefined }];
  });
  const others = stored.flatMap((webhook): Action[] => {
    if (webhook.disabled !== undefined) return [];
    const here = running.get(webhook.name);
    // What has other settings now is started when it has ended.
    if (here === undefined) return [{ kind: 'start', webhook }];
    if (here.ending || !goesOn(here.webhook, webhook)) return [];
    return [{ kind: 'refresh', webhook }];
  });
  return [...ends, ...others];
}

/** The subscription may stay as it is: the webhook is enabled and has the same settings. */
const goesOn = (before: Webhook, now: Webhook): boolean =>
  now.disabled === undefined &&
  before.topic === now.topic &&
  before.consumerGroup === now.consumerGroup &&
  // Both went through one schema, so their fields stand in one order.
  JSON.stringify(before.settings) === JSON.stringify(now.settings);
