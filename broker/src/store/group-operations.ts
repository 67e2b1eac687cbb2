import { CheckPolicy } from '@escrowmq/protocol';
import type { GroupToSave, ProducerGroup, Store } from '../domain/ports.js';
import { nextSecrets } from '../domain/signing-secrets.js';
import { compensationsDueNow } from './compensation-operations.js';
import { type Database, DuplicateKey, NEVER, type Sql } from './sql.js';

/** For a day after a rotation, checks carry both signatures. */
const PREVIOUS_SECRET_KEPT_MS = 24 * 60 * 60 * 1000;

interface GroupRow {
  name: string;
  check_urls: string;
  /** Null in a row from before there were any. */
  compensation_urls: string | null;
  check_policy: string;
  settings_version: number;
  signing_secret: string;
  previous_secret: string | null;
}

function groupOf(row: GroupRow): ProducerGroup {
  return {
    name: row.name,
    checkUrls: JSON.parse(row.check_urls) as string[],
    compensationUrls: JSON.parse(row.compensation_urls ?? '[]') as string[],
    checkPolicy: CheckPolicy.parse(JSON.parse(row.check_policy)),
    version: row.settings_version,
    signingSecrets: [
      row.signing_secret,
      ...(row.previous_secret === null ? [] : [row.previous_secret]),
    ],
  };
}

async function read(
  database: Database,
  sql: Sql,
  name: string,
): Promise<ProducerGroup | undefined> {
  const rows = await sql.all<GroupRow>(
    `select name, check_urls, compensation_urls, check_policy, settings_version, signing_secret,
       case when rotated_at > ${database.dialect.now} - ? then previous_secret end as previous_secret
     from escrow_producer_group where name = ?`,
    [PREVIOUS_SECRET_KEPT_MS, name],
  );
  const [row] = rows;
  return row === undefined ? undefined : groupOf(row);
}

export const findGroup = (database: Database, name: string): Promise<ProducerGroup | undefined> =>
  read(database, database, name);

/** Creates the group, or reports that somebody has already. */
async function create(database: Database, group: GroupToSave): Promise<boolean> {
  const { now } = database.dialect;
  try {
    await database.insertRows({
      table: 'escrow_producer_group',
      columns: [
        'name',
        'check_urls',
        'compensation_urls',
        'check_policy',
        'settings_version',
        'signing_secret',
        'updated_at',
      ],
      expressions: ['?', '?', '?', '?', '?', '?', `${now} + ?`],
      rows: [
        [
          group.name,
          JSON.stringify(group.checkUrls),
          JSON.stringify(group.compensationUrls),
          JSON.stringify(group.checkPolicy),
          group.version ?? 0,
          group.signingSecrets?.[0] ?? group.newSecret,
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

/** Guarded: settings of an older version, from an instance that starts late, change nothing. */
const changeGroup = (now: string) => `
  update escrow_producer_group
  set check_urls = ?, compensation_urls = ?, check_policy = ?, settings_version = ?,
    updated_at = ${now}
  where name = ? and settings_version <= ?`;
/** The version stays: whoever does not count must not stand in the way of those who do. */
const changeUnversioned = (now: string) => `
  update escrow_producer_group
  set check_urls = ?, compensation_urls = ?, check_policy = ?, updated_at = ${now}
  where name = ?`;
/** `rotated_at` names the moment from which `previous_secret` is counted down. */
const rotateSecret = (now: string) => `
  update escrow_producer_group
  set previous_secret = ?, signing_secret = ?, rotated_at = ${now}
  where name = ? and signing_secret = ?`;

/** As `rotateSecret`, and the previous one signs for as long as it is stated. */
const keepBoth = `
  update escrow_producer_group
  set previous_secret = ?, signing_secret = ?, rotated_at = ${NEVER}
  where name = ? and signing_secret = ?`;
/** From now on the one before it is counted down, as after every other rotation. */
const endStated = (now: string) => `
  update escrow_producer_group
  set rotated_at = ${now}
  where name = ? and signing_secret = ? and rotated_at = ${NEVER}`;

/** Each time somebody else has rotated in between. */
const SECRETS_ATTEMPTS_MAX = 10;

/** Makes the stated secrets those in force; repeated it changes nothing. */
async function stateSecrets(
  database: Database,
  name: string,
  stated: readonly [string, string?],
): Promise<void> {
  const { now } = database.dialect;
  for (let attempt = 1; attempt <= SECRETS_ATTEMPTS_MAX; attempt += 1) {
    const [current = '', previous] = (await findGroup(database, name))?.signingSecrets ?? [];
    const next = nextSecrets({ current, previous }, stated);
    if (next === undefined) {
      if (stated[1] === undefined) await database.run(endStated(now), [name, current]);
      else if (stated[1] === previous) {
        await database.run(keepBoth, [previous, current, name, current]);
      }
      return;
    }
    const change = next.previousStays ? keepBoth : rotateSecret(now);
    const values = [next.previous, next.current, name, current];
    if ((await database.run(change, values)) === 1) return;
  }
  throw new Error(`the secrets of producer group ${name} changed all the time while they were set`);
}

/** False when a higher version is stored. */
async function change(database: Database, group: GroupToSave): Promise<boolean> {
  const { now } = database.dialect;
  const { name, version } = group;
  const settings = [group.checkUrls, group.compensationUrls, group.checkPolicy].map((value) =>
    JSON.stringify(value),
  );
  const changed =
    version === undefined
      ? await database.run(changeUnversioned(now), [...settings, name])
      : await database.run(changeGroup(now), [...settings, version, name, version]);
  return changed === 1;
}

export async function saveGroup(
  database: Database,
  group: GroupToSave,
): ReturnType<Store['saveGroup']> {
  const { now } = database.dialect;
  let applied = await create(database, group);
  if (!applied) {
    applied = await change(database, group);
    if (applied && group.rotate) {
      const signing = (await findGroup(database, group.name))?.signingSecrets ?? [];
      const [current = ''] = signing;
      // A call that is repeated has rotated already.
      if (!signing.includes(group.newSecret)) {
        await database.run(rotateSecret(now), [current, group.newSecret, group.name, current]);
      }
    }
  }
  if (applied && group.signingSecrets !== undefined) {
    await stateSecrets(database, group.name, group.signingSecrets);
  }
  if (applied && group.compensationUrls.length > 0) await compensationsDueNow(database, group.name);
  const saved = await findGroup(database, group.name);
  if (saved === undefined) throw new Error(`producer group ${group.name} vanished while saved`);
  // Secrets are random, so the row itself tells whether ours was taken. What the statements say
  // would be wrong after a lost reply: repeated, they find the group or the rotation there already.
  const secretMade =
    group.signingSecrets === undefined && saved.signingSecrets.includes(group.newSecret);
  return { group: saved, secretMade, applied };
}
