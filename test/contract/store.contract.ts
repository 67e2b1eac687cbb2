import { afterAll, beforeAll, beforeEach, describe } from '@jest/globals';
import { emptyStore, type OpenForTest, type OpenStore } from '../support/store-fixtures.js';
import { checksContract } from './checks.contract.js';
import { compensationsContract } from './compensations.contract.js';
import { delaysContract } from './delays.contract.js';
import { expectsContract } from './expects.contract.js';
import { forwardsContract } from './forwards.contract.js';
import { groupsContract } from './groups.contract.js';
import { intakeContract } from './intake.contract.js';
import { interleavingContract } from './interleaving.contract.js';
import { openMessagesContract } from './open-messages.contract.js';
import { orderingContract } from './ordering.contract.js';
import { plansContract } from './plans.contract.js';
import { readingContract } from './reading.contract.js';
import { receiptsContract } from './receipts.contract.js';
import { retentionContract } from './retention.contract.js';
import { statesContract } from './states.contract.js';
import { unsettledContract } from './unsettled.contract.js';
import { valuesContract } from './values.contract.js';
import { webhooksContract } from './webhooks.contract.js';

/**
 * What every store must do, whatever database is under it. Each test begins with an empty store.
 * @param open opens the database of this run, with its schema
 */
export function storeContract(name: string, open: OpenForTest): void {
  describe(name, () => {
    let current: OpenStore | undefined;
    const opened = () => {
      if (current === undefined) throw new Error('the store is open in tests only');
      return current;
    };

    beforeAll(async () => {
      current = await open();
    });
    beforeEach(() => emptyStore(opened()));
    afterAll(() => current?.store.close());

    statesContract(opened);
    intakeContract(opened);
    openMessagesContract(opened);
    checksContract(opened);
    forwardsContract(opened);
    delaysContract(opened);
    orderingContract(opened);
    receiptsContract(opened);
    expectsContract(opened);
    compensationsContract(opened);
    retentionContract(opened);
    unsettledContract(opened);
    readingContract(opened);
    groupsContract(opened);
    webhooksContract(opened);
    valuesContract(opened);
    interleavingContract(opened);
    plansContract(opened);
  });
}
