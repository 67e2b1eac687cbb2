import { WebhookSettings } from '@escrowmq/protocol';
import { nextSecrets } from '../domain/signing-secrets.js';
import type { Webhook, WebhookSaved, WebhookStore, WebhookToSave } from '../domain/webhook.js';
import { type Database, DuplicateKey, NEVER, type SqlValue } from './sql.js';

/** For a day after a rotation, calls carry both signatures. */
const PREVIOUS_SECRET_KEPT_MS = 24 * 60 * 60 * 1000;

/** Each time somebody else has changed the row in between; one save a millisecond does not. */
const CHANGE_ATTEMPTS_MAX = 50;

/**
 * Keys that are remembered to be unbound. More changes than that, before an instance has seen the
 * first, leave the oldest bound.
 */
const FORMER_KEYS_MAX = 100;

const DISABLED_BY_OPERATOR = 'disabled by an operator';

interface WebhookRow {
  name: string;
  topic: string;
  consumer_group: string;
  settings: string;
  former_routing_keys: string;
  settings_version: number;
  revision: number;
  signing_secret: string;
  previous_secret: string | null;
  enabled_at: number;
  disabled_at: number | null;
  disabled_reason: string | null;
}

const webhookOf = (row: WebhookRow): Webhook => ({
  name: row.name,
  topic: row.topic,
  consumerGroup: row.consumer_group,
  settings: WebhookSettings.parse(JSON.parse(row.settings)),
  formerRoutingKeys: JSON.parse(row.former_routing_keys) as string[],
  version: row.settings_version,
  revision: row.revision,
  signingSecrets: [
    row.signing_secret,
    ...(row.previous_secret === null ? [] : [row.previous_secret]),
  ],
  enabledAt: row.enabled_at,
  ...(row.disabled_at === null
    ? {}
    : { disabled: { since: row.disabled_at, reason: row.disabled_reason ?? '' } }),
});

async function read(
  database: Database,
  where: string,
  values: readonly SqlValue[],
): Promise<Webhook[]> {
  const rows = await database.all<WebhookRow>(
    `select name, topic, consumer_group, settings, former_routing_keys, settings_version, revision,
       signing_secret, enabled_at, disabled_at, disabled_reason,
       case when rotated_at > ${database.dialect.now} - ? then previous_secret end as previous_secret
     from escrow_webhook ${where}`,
    [PREVIOUS_SECRET_KEPT_MS, ...values],
  );
  return rows.map(webhookOf);
}

export const listWebhooks = (database: Database): Promise<Webhook[]> =>
  read(database, 'order by name', []);

export async function findWebhook(database: Database, name: string): Promise<Webhook | undefined> {
  const [webhook] = await read(database, 'where name = ?', [name]);
  return webhook;
}

/** Creates the webhook, or reports that its name or its group is taken. */
async function create(database: Database, webhook: WebhookToSave): Promise<boolean> {
  const { now } = database.dialect;
  const disabled = webhook.enabled === false;
  try {
    await database.insertRows({
      table: 'escrow_webhook',
      columns: [
        'name',
        'topic',
        'consumer_group',
        'settings',
        'former_routing_keys',
        'settings_version',
        'revision',
        'signing_secret',
        'enabled_at',
        'disabled_at',
        'disabled_reason',
        'updated_at',
      ],
      expressions: [
        ...Array(8).fill('?'),
        `${now} + ?`,
        // Null stays null, whatever is added to it.
        `${now} + ?`,
        '?',
        `${now} + ?`,
      ],
      rows: [
        [
          webhook.name,
          webhook.topic,
          webhook.consumerGroup,
          JSON.stringify(webhook.settings),
          '[]',
          webhook.version ?? 0,
          1,
          webhook.signingSecrets?.[0] ?? webhook.newSecret,
          0,
          disabled ? 0 : null,
          disabled ? DISABLED_BY_OPERATOR : null,
          0,
        ],
      ],
      onDuplicate: 'fail',
    });
    return true;
  } catch (error) {
    if (error instanceof DuplicateKey) return false;
    throw error;
  }
}

/** What had been bound and is not asked for any more, newest last. */
function formerKeys(current: Webhook, routingKeys: readonly string[]): string[] {
  const once = [...current.formerRoutingKeys, ...current.settings.routingKeys];
  const former = new Set(once.filter((key) => !routingKeys.includes(key)));
  return [...former].slice(-FORMER_KEYS_MAX);
}

/**
 * Guarded by the revision that `current` was read with; false when it is another by now. Repeated
 * after a lost reply it changes nothing, and the row tells that it was done.
 */
async function change(
  database: Database,
  current: Webhook,
  webhook: WebhookToSave,
): Promise<boolean> {
  const { now } = database.dialect;
  const { enabled, settings, version = current.version } = webhook;
  const sets = [
    'settings = ?',
    'former_routing_keys = ?',
    'settings_version = ?',
    'revision = revision + 1',
    `updated_at = ${now}`,
  ];
  const values: SqlValue[] = [
    JSON.stringify(settings),
    JSON.stringify(formerKeys(current, settings.routingKeys)),
    version,
  ];
  if (enabled === true && current.disabled !== undefined) {
    sets.push('disabled_at = null', 'disabled_reason = null', `enabled_at = ${now}`);
  }
  if (enabled === false && current.disabled === undefined) {
    sets.push(`disabled_at = ${now}`, 'disabled_reason = ?');
    values.push(DISABLED_BY_OPERATOR);
  }
  const secrets = secretSets(current, webhook, now);
  sets.push(...secrets.sets);
  values.push(...secrets.values);
  const changed = await database.run(
    `update escrow_webhook set ${sets.join(', ')} where name = ? and revision = ?`,
    [...values, current.name, current.revision],
  );
  return changed === 1;
}

/** What a save sets of the secrets: nothing when they are in force already. */
function secretSets(
  { signingSecrets: [secret = '', previous] }: Webhook,
  { rotate, newSecret, signingSecrets: stated }: WebhookToSave,
  now: string,
): { sets: string[]; values: SqlValue[] } {
  const columns = ['previous_secret = ?', 'signing_secret = ?'];
  if (stated === undefined) {
    // Else a save that was repeated would take its own secret for the previous one.
    if (!rotate || secret === newSecret || previous === newSecret) return { sets: [], values: [] };
    return { sets: [...columns, `rotated_at = ${now}`], values: [secret, newSecret] };
  }
  const next = nextSecrets({ current: secret, previous }, stated);
  if (next !== undefined) {
    const rotatedAt = next.previousStays ? String(NEVER) : now;
    return {
      sets: [...columns, `rotated_at = ${rotatedAt}`],
      values: [next.previous, next.current],
    };
  }
  // In force already. The one before it signs as long as it is stated, and then for a day more.
  if (stated[1] !== undefined && stated[1] === previous) {
    return { sets: [`rotated_at = ${NEVER}`], values: [] };
  }
  if (stated[1] !== undefined) return { sets: [], values: [] };
  const ended = `case when rotated_at = ${NEVER} then ${now} else rotated_at end`;
  return { sets: [`rotated_at = ${ended}`], values: [] };
}

/** Whoever has the group of the topic; undefined when that webhook is gone by now. */
async function holderOf(database: Database, webhook: WebhookToSave): Promise<string | undefined> {
  const [holder] = await database.all<{ name: string }>(
    'select name from escrow_webhook where topic = ? and consumer_group = ?',
    [webhook.topic, webhook.consumerGroup],
  );
  return holder?.name;
}

/** One attempt; undefined when somebody else came in between. */
async function saveOnce(
  database: Database,
  webhook: WebhookToSave,
): Promise<WebhookSaved | undefined> {
  const created = await create(database, webhook);
  const current = await findWebhook(database, webhook.name);
  if (current === undefined) {
    const by = await holderOf(database, webhook);
    return by === undefined ? undefined : { kind: 'groupTaken', by };
  }
  // Secrets are random, so the row itself tells whether ours was taken, also after a lost reply.
  const made = (row: Webhook) =>
    webhook.signingSecrets === undefined && row.signingSecrets.includes(webhook.newSecret);
  if (created && webhook.signingSecrets?.[1] === undefined) {
    return { kind: 'saved', webhook: current, created, secretMade: made(current), applied: true };
  }
  if (current.topic !== webhook.topic || current.consumerGroup !== webhook.consumerGroup) {
    return { kind: 'different', webhook: current };
  }
  if (webhook.version !== undefined && webhook.version < current.version) {
    return { kind: 'saved', webhook: current, created, secretMade: false, applied: false };
  }
  if (!(await change(database, current, webhook))) return undefined;
  const saved = await findWebhook(database, webhook.name);
  if (saved === undefined) return undefined;
  return { kind: 'saved', webhook: saved, created, secretMade: made(saved), applied: true };
}

export async function saveWebhook(
  database: Database,
  webhook: WebhookToSave,
): Promise<WebhookSaved> {
  for (let attempt = 1; attempt <= CHANGE_ATTEMPTS_MAX; attempt += 1) {
    const saved = await saveOnce(database, webhook);
    if (saved !== undefined) return saved;
  }
  throw new Error(`webhook ${webhook.name} changed all the time while it was saved`);
}

/** Guarded: what was decided about other settings does not count for these. */
const disable = (now: string) => `
  update escrow_webhook
  set disabled_at = ${now}, disabled_reason = ?, revision = revision + 1, updated_at = ${now}
  where name = ? and revision = ? and disabled_at is null`;

export async function disableWebhook(
  database: Database,
  { name, revision, reason }: Parameters<WebhookStore['disableWebhook']>[0],
): Promise<boolean> {
  return (await database.run(disable(database.dialect.now), [reason, name, revision])) === 1;
}

export async function deleteWebhook(database: Database, name: string): Promise<boolean> {
  return (await database.run('delete from escrow_webhook where name = ?', [name])) === 1;
}
