import type { WebhookSettings } from '@escrowmq/protocol';
import type { StoreTime } from './transaction.js';

/** An HTTP endpoint that is told of the messages of a topic, as a consumer group of its own. */
export interface Webhook {
  name: string;
  topic: string;
  consumerGroup: string;
  settings: WebhookSettings;
  /** Keys that it once had and has no more: what is bound by them is to be unbound. */
  formerRoutingKeys: string[];
  /** Of the settings, as their caller counts; 0 as long as nobody has given one. */
  version: number;
  /** Grows with every change of the row; guards a change that was decided by what it was before. */
  revision: number;
  /** whsec_…, newest first; calls are signed with each. */
  signingSecrets: string[];
  /** When it was created or last enabled. */
  enabledAt: StoreTime;
  disabled?: { since: StoreTime; reason: string };
}

export interface WebhookToSave {
  name: string;
  topic: string;
  consumerGroup: string;
  settings: WebhookSettings;
  /** Lower than the stored one: nothing changes. @default the stored one stays, or 0 */
  version?: number | undefined;
  /** @default as it is; a new one is enabled */
  enabled?: boolean | undefined;
  /** Used when the webhook is new, or when `rotate` asks for it. */
  newSecret: string;
  rotate: boolean;
  /** The receiver's own, the one in force first; `newSecret` is not used then. */
  signingSecrets?: readonly [string, string?] | undefined;
}

export type WebhookSaved =
  /** `webhook` is what is stored now. `secretMade`: `newSecret` was taken. */
  | { kind: 'saved'; webhook: Webhook; created: boolean; secretMade: boolean; applied: boolean }
  /** It exists on another topic or for another group. */
  | { kind: 'different'; webhook: Webhook }
  /** Another webhook has this group of this topic. */
  | { kind: 'groupTaken'; by: string };

/** The rows of webhooks. Rejects with `STORE_UNAVAILABLE` when the database can't be reached. */
export interface WebhookStore {
  /** Creates or changes it, unless a higher version is stored; then not even its secret is rotated. */
  saveWebhook(webhook: WebhookToSave): Promise<WebhookSaved>;
  findWebhook(name: string): Promise<Webhook | undefined>;
  /** In order of their names. */
  listWebhooks(): Promise<Webhook[]>;
  /** False when it has changed since `revision`, or is disabled already. */
  disableWebhook(change: { name: string; revision: number; reason: string }): Promise<boolean>;
  /** False when there was none. */
  deleteWebhook(name: string): Promise<boolean>;
}

/** It was disabled, or a message of its group became a dead letter. */
export interface WebhookAlert {
  kind: 'webhookDisabled' | 'webhookGaveUp';
  webhook: string;
  topic: string;
  consumerGroup: string;
  messageId?: string;
  detail: string;
}
