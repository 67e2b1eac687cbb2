import type { Migration } from '../migrate.js';
import { transactions } from './migrations/0001-transactions.js';
import { groupVersions } from './migrations/0002-group-versions.js';
import { cancelledMessages } from './migrations/0003-cancelled-messages.js';
import { ordering } from './migrations/0004-ordering.js';
import { compensations } from './migrations/0005-compensations.js';
import { webhooks } from './migrations/0006-webhooks.js';
import { instances } from './migrations/0007-instances.js';
import { closing } from './migrations/0008-closing.js';

/** In order of their version. */
export const migrations: readonly Migration[] = [
  transactions,
  groupVersions,
  cancelledMessages,
  ordering,
  compensations,
  webhooks,
  instances,
  closing,
];
