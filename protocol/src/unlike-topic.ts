/*
 * A topic is a durable topic exchange, and somebody may have declared it with more than that. RabbitMQ
 * tells by refusing a declaration that is not the same: "PRECONDITION_FAILED - inequivalent arg
 * 'alternate-exchange' for exchange 'user' in vhost '/': received none but current is …". It compares
 * type, durable, auto_delete, internal and alternate-exchange in this order and names the first that
 * differs, so what it names tells what holds. What a policy adds it does not compare, nor tell.
 */

/**
 * What a topic may have beside being one. With an alternate exchange a message that no queue is bound
 * for goes there, and is returned only where no queue is bound there either. An auto-delete exchange vanishes with
 * its last binding, and is declared again when it is needed.
 */
export type UnlikeTopic = 'alternate-exchange' | 'auto_delete';

/** What the exchange has beside being a durable topic exchange; undefined when it may be none. */
export function unlikeTopicIn(refusal: unknown): UnlikeTopic | undefined {
  if (!(refusal instanceof Error)) return undefined;
  const argument = /inequivalent arg '([^']+)' for exchange/.exec(refusal.message)?.[1];
  return argument === 'alternate-exchange' || argument === 'auto_delete' ? argument : undefined;
}
