import type { Store } from '../domain/ports.js';
import { cancel } from './cancel-operations.js';
import { claimDueChecks, releaseChecks, saveChecks } from './check-operations.js';
import {
  claimDueCompensations,
  endCompensations,
  releaseCompensations,
  saveCompensations,
} from './compensation-operations.js';
import {
  claimDueForwards,
  postponeForwards,
  readCommitted,
  releaseForwards,
  saveForwards,
} from './forward-operations.js';
import { findGroup, saveGroup } from './group-operations.js';
import { historyRows } from './history.js';
import { heartbeat, livingInstances, removeInstance } from './instance-operations.js';
import { find, insert } from './intake-operations.js';
import { counts, search, view } from './reading-operations.js';
import { saveReceipts } from './receipt-operations.js';
import { resolve } from './resolve-operations.js';
import { createPurge, purgeTombstones } from './retention-operations.js';
import type { Database } from './sql.js';
import { close, createTellOverdue, unsettled, unsettledOn } from './unsettled-operations.js';
import { decide } from './verdict-operations.js';
import {
  deleteWebhook,
  disableWebhook,
  findWebhook,
  listWebhooks,
  saveWebhook,
} from './webhook-operations.js';
import { proveWritable } from './writable.js';

/**
 * The store over one database. Each operation stands in the file of its purpose; here they only
 * meet, so that the contract of `Store` can be read off one screen.
 */
export function createStore(database: Database, id: string): Store {
  return {
    id,
    async now() {
      const [row] = await database.all<{ now: number }>(`select ${database.dialect.now} as now`);
      if (row === undefined) throw new Error('the database did not tell its time');
      return row.now;
    },
    proveWritable: () => proveWritable(database),
    caveats: (needs) => database.caveats(needs),
    insert: (batch) => insert(database, batch),
    decide: (batch, leaseMs) => decide(database, batch, leaseMs),
    find: (ids) => find(database, ids),
    claimDueChecks: (claim) => claimDueChecks(database, claim),
    saveChecks: (batch) => saveChecks(database, batch),
    releaseChecks: (ids) => releaseChecks(database, ids),
    claimDueForwards: (claim) => claimDueForwards(database, claim),
    readCommitted: (ids) => readCommitted(database, ids),
    saveForwards: (batch, leaseMs) => saveForwards(database, batch, leaseMs),
    postponeForwards: (batch) => postponeForwards(database, batch),
    releaseForwards: (ids) => releaseForwards(database, ids),
    cancel: (request) => cancel(database, request),
    resolve: (change) => resolve(database, change),
    appendHistory: (entries) =>
      database.insertRows(historyRows(entries.map(({ id, event }) => ({ id, history: [event] })))),
    saveReceipts: (batch) => saveReceipts(database, batch),
    closeUnsettled: (closing) => close(database, closing),
    tellOverdue: createTellOverdue(database),
    unsettled: (ids) => unsettled(database, ids),
    unsettledOn: (keys, group) => unsettledOn(database, keys, group),
    claimDueCompensations: (claim) => claimDueCompensations(database, claim),
    saveCompensations: (batch) => saveCompensations(database, batch),
    releaseCompensations: (claimed) => releaseCompensations(database, claimed),
    endCompensations: (end) => endCompensations(database, end),
    view: (id) => view(database, id),
    search: (query) => search(database, query),
    saveGroup: (group) => saveGroup(database, group),
    findGroup: (name) => findGroup(database, name),
    saveWebhook: (webhook) => saveWebhook(database, webhook),
    findWebhook: (name) => findWebhook(database, name),
    listWebhooks: () => listWebhooks(database),
    disableWebhook: (change) => disableWebhook(database, change),
    deleteWebhook: (name) => deleteWebhook(database, name),
    purgeFinished: createPurge(database),
    purgeTombstones: (purge) => purgeTombstones(database, purge),
    heartbeat: (instance) => heartbeat(database, instance),
    livingInstances: () => livingInstances(database, database.dialect),
    removeInstance: (id) => removeInstance(database, id),
    counts: () => counts(database),
    close: () => database.close(),
  };
}
