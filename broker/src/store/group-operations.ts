import { CheckPolicy } from '@escrowmq/protocol';
import type { GroupToSave, ProducerGroup } from '../domain/ports.js';
import { type Database, DuplicateKey, type Sql } from './sql.js';

/** For a day after a rotation, checks carry both signatures. */
const PREVIOUS_SECRET_KEPT_MS = 24 * 60 * 60 * 1000;

interface GroupRow {
  name: string;
  check_urls: string;
  check_policy: string;
  signing_secret: string;
  previous_secret: string | null;
}

function groupOf(row: GroupRow): ProducerGroup {
  return {
    name: row.name,
    checkUrls: JSON.parse(row.check_urls) as string[],
    checkPolicy: CheckPolicy.parse(JSON.parse(row.check_policy)),
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
    `select name, check_urls, check_policy, signing_secret,
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
      columns: ['name', 'check_urls', 'check_policy', 'signing_secret', 'updated_at'],
      expressions: ['?', '?', '?', '?', `${now} + ?`],
      rows: [
        [
          group.name,
          JSON.stringify(group.checkUrls),
          JSON.stringify(group.checkPolicy),
          group.newSecret,
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

/** `rotated_at` names the moment from which `previous_secret` is counted down. */
const changeGroup = (now: string) => `
  update escrow_producer_group set check_urls = ?, check_policy = ?, updated_at = ${now}
  where name = ?`;
const rotateSecret = (now: string) => `
  update escrow_producer_group
  set previous_secret = ?, signing_secret = ?, rotated_at = ${now}
  where name = ? and signing_secret = ?`;

export async function saveGroup(
  database: Database,
  group: GroupToSave,
): Promise<{ group: ProducerGroup; secretMade: boolean }> {
  const { now } = database.dialect;
  if (!(await create(database, group))) {
    await database.run(changeGroup(now), [
      JSON.stringify(group.checkUrls),
      JSON.stringify(group.checkPolicy),
      group.name,
    ]);
    if (group.rotate) {
      const current = (await findGroup(database, group.name))?.signingSecrets[0] ?? '';
      await database.run(rotateSecret(now), [current, group.newSecret, group.name, current]);
    }
  }
  const saved = await findGroup(database, group.name);
  if (saved === undefined) throw new Error(`producer group ${group.name} vanished while saved`);
  // Secrets are random, so the row itself tells whether ours was taken. What the statements say
  // would be wrong after a lost reply: repeated, they find the group or the rotation there already.
  return { group: saved, secretMade: saved.signingSecrets.includes(group.newSecret) };
}
