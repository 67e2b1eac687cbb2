import type { Migration } from '../migrate.js';
import { transactions } from './migrations/0001-transactions.js';
import { groupVersions } from './migrations/0002-group-versions.js';

/** In order of their version. */
export const migrations: readonly Migration[] = [transactions, groupVersions];
