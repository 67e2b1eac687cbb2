import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';
import { openSqliteForTest } from '../support/store-fixtures.js';
import { storeContract } from './store.contract.js';

const folder = mkdtempSync(join(tmpdir(), 'escrow-sqlite-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

storeContract('SQLite', () => openSqliteForTest(join(folder, 'contract.db')));
