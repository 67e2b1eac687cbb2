import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Finding } from './checker.js';
import type { DoneFault } from './nemesis/nemesis.js';
import type { TruthDatabase } from './truth.js';

/*
 * What a failing run leaves: the schedule, the faults with their times, the log of every process,
 * the truth as one SQLite file, and the history of every transaction that something is wrong with.
 */

export interface Evidence {
  /** Has the schedule, the logs and the truth already. */
  folder: string;
  findings: Record<string, Finding[]>;
  faults: readonly DoneFault[];
}

/** A run that broke everything need not write down each of its transactions. */
const HISTORIES_MAX = 200;
const TABLES = ['business', 'barrier', 'escrow', 'edge', 'history', 'consumed', 'effect'];

export function keepEvidence(truth: TruthDatabase, { folder, findings, faults }: Evidence): void {
  const found = Object.values(findings).flat();
  const ids = [...new Set(found.map(({ transactionId }) => transactionId))];
  const histories = ids
    .slice(0, HISTORIES_MAX)
    .map((id) => [
      id,
      Object.fromEntries(
        TABLES.map((table) => [
          table,
          truth.prepare(`select * from ${table} where transaction_id = ?`).all(id),
        ]),
      ),
    ]);
  const write = (name: string, content: unknown) =>
    writeFileSync(join(folder, name), JSON.stringify(content, null, 1));
  write('faults.json', faults);
  write('findings.json', findings);
  write('histories.json', Object.fromEntries(histories));
}
