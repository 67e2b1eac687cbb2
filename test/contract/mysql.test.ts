import { freshMysqlDatabase } from '../support/servers.js';
import { openMysqlForTest } from '../support/store-fixtures.js';
import { storeContract } from './store.contract.js';

storeContract('MySQL', async () => openMysqlForTest(await freshMysqlDatabase()));
