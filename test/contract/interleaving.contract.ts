import { describe, expect, test } from '@jest/globals';
import type { Store } from '../../broker/src/domain/ports.js';
import { byProducer } from '../../broker/src/domain/transaction.js';
import type { Database, Sql } from '../../broker/src/store/sql.js';
import { createStore } from '../../broker/src/store/store.js';
import {
  decide,
  forward,
  newTransaction,
  type OpenStore,
  rowOf,
} from '../support/store-fixtures.js';

/**
 * A store on which `meanwhile` happens once: right after the first statement outside a transaction
 * that matches, or right before the first such transaction.
 */
function interrupted(
  database: Database,
  at: { after: RegExp } | { beforeTransaction: true },
  meanwhile: () => Promise<unknown>,
): Store {
  let done = false;
  const once = async () => {
    if (done) return;
    done = true;
    await meanwhile();
  };
  const run: Sql['run'] = async (sql, values) => {
    const result = await database.run(sql, values);
    if ('after' in at && at.after.test(sql)) await once();
    return result;
  };
  return createStore(
    {
      ...database,
      run,
      async transaction(work) {
        if ('beforeTransaction' in at) await once();
        return database.transaction(work);
      },
    },
    'test',
  );
}

/** What another instance does between two statements of ours. */
export function interleavingContract(opened: () => OpenStore): void {
  describe('what happens between two statements', () => {
    test('a verdict that overtakes its prepare is unknown, not contradicted', async () => {
      const { store, database } = opened();
      const transaction = newTransaction();
      const { id } = transaction;
      const interruptedStore = interrupted(database, { after: /set state = 'committed'/ }, () =>
        store.insert([transaction]),
      );
      const verdict = { id, decision: 'commit', decidedBy: byProducer } as const;
      expect(await interruptedStore.decide([verdict], 0)).toEqual([{ kind: 'unknown' }]);
      expect((await rowOf(store, id)).state.state).toBe('prepared');
      expect(await interruptedStore.decide([verdict], 0)).toEqual([{ kind: 'moved' }]);
    });

    test('a verdict that another instance overtakes is answered with what stands', async () => {
      const { store, database } = opened();
      const [mine, absent] = [newTransaction(), newTransaction()];
      await store.insert([mine]);
      const interruptedStore = interrupted(database, { after: /set state = 'committed'/ }, () =>
        store.decide([{ id: mine.id, decision: 'rollback', decidedBy: byProducer }], 0),
      );
      const verdicts = [mine, absent].map(
        ({ id }) => ({ id, decision: 'commit', decidedBy: byProducer }) as const,
      );
      // The token on the row tells that this very flush moved it.
      expect(await interruptedStore.decide(verdicts, 0)).toEqual([
        { kind: 'moved' },
        { kind: 'unknown' },
      ]);
    });

    test('a prepare repeated while its row is purged does not come to life again (F75)', async () => {
      const { store, database } = opened();
      const transaction = newTransaction({ mayBePurged: true });
      const { id } = transaction;
      await store.insert([transaction]);
      await decide(store, id, 'commit');
      await forward(store, [id]);
      const purge = () => store.purgeFinished({ olderThanMs: 0, limit: 10 });
      const interruptedStore = interrupted(database, { beforeTransaction: true }, purge);
      const results = await interruptedStore.insert([newTransaction(), transaction]);
      const found = (await store.find([id])).get(id);
      expect(found?.kind).toBe('tombstone');
      expect(results).toEqual([{ kind: 'created' }, { kind: 'repeated', found }]);
      expect((await store.counts()).byState).toMatchObject({ prepared: 1, forwarded: 0 });
    });
  });
}
