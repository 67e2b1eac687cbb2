import { expect, test } from '@jest/globals';
import { type Bench, failure, message } from './bench.js';

export function describeTransactions<Tx>(bench: Bench<Tx>): void {
  test('a transaction commits its rows and its messages and returns the result of its callback', async () => {
    const { engine, layer, producer } = bench;
    const result = await producer.transaction(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      return 'registered';
    });
    const { id, state } = bench.atBroker();
    expect(result).toEqual({ outcome: 'committed', id, value: 'registered', acknowledged: true });
    expect(state).toBe('committed');
    expect(await engine.barrier(id)).toBe('commit');
    expect(await engine.accounts()).toEqual([1]);
  });

  test('an error of the callback comes back unchanged, and both sides are rolled back', async () => {
    const { engine, layer, producer } = bench;
    const mine = new Error('phone number taken');
    const thrown = await failure(
      producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        throw mine;
      }),
    );
    expect(thrown).toBe(mine);
    const { id, state } = bench.atBroker();
    expect(state).toBe('rolledBack');
    expect(await engine.accounts()).toEqual([]);
    expect(await engine.barrier(id)).toBeUndefined();
  });

  test('a check during the open transaction answers unknown, and commit once it has committed (F11)', async () => {
    const { layer, producer } = bench;
    let id = '';
    let during = '';
    await producer.transaction(layer.database, message, async (tx, info) => {
      id = info.id;
      await layer.insert(tx, 1);
      during = await bench.check(id);
    });
    expect(during).toBe('unknown');
    expect(await bench.check(id)).toBe('commit');
    expect(await bench.check(id)).toBe('commit');
  });

  test('a check that comes first rolls back, and says so again', async () => {
    const id = '0198f3c2-0000-7000-8000-000000000001';
    expect(await bench.check(id)).toBe('rollback');
    expect(await bench.check(id)).toBe('rollback');
  });

  test('what a nested transaction wrote is committed with the outer one', async () => {
    const { engine, layer, producer } = bench;
    const { nest } = layer;
    if (nest === undefined) return;
    await producer.transaction(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      await nest(tx, async (inner) => void (await layer.insert(inner, 2)));
    });
    expect(bench.atBroker().state).toBe('committed');
    expect(await engine.accounts()).toEqual([1, 2]);
  });

  test('a nested transaction that fails and is caught leaves the outer one whole', async () => {
    const { engine, layer, producer } = bench;
    const { nest } = layer;
    if (nest === undefined) return;
    await producer.transaction(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      const nested = nest(tx, async (inner) => {
        await layer.insert(inner, 2);
        await layer.insert(inner, 1);
      });
      await expect(nested).rejects.toBeDefined();
      await layer.insert(tx, 3);
    });
    expect(bench.atBroker().state).toBe('committed');
    expect(await engine.accounts()).toEqual([1, 3]);
  });

  test('a COMMIT that the server refuses is passed on, and both sides are rolled back', async () => {
    const { engine, layer, producer } = bench;
    if (engine.dialect !== 'postgres') return;
    const thrown = await failure(
      producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        await layer.run(tx, 'insert into owner (account_id) values (99)');
      }),
    );
    expect(JSON.stringify([thrown, thrown.message, String(thrown.cause)])).toMatch(
      /foreign key|23503/i,
    );
    expect(bench.atBroker().state).toBe('rolledBack');
    expect(await engine.accounts()).toEqual([]);
  });
}
