import { expect, test } from '@jest/globals';
import { type Bench, failure, message } from './bench.js';

export function describeEnlisting<Tx>(bench: Bench<Tx>): void {
  test('messages enlisted in a transaction of the service go when it commits', async () => {
    const { engine, layer, producer } = bench;
    const escrow = await layer.begin(async (tx) => {
      const enlisted = await producer.enlist(layer.enlistable(tx), message);
      await layer.insert(tx, 1);
      await enlisted.verify();
      return enlisted;
    });
    expect(bench.atBroker().state).toBe('prepared');
    expect(await escrow.settle(layer.database)).toEqual({ outcome: 'committed', id: escrow.id });
    expect(bench.atBroker().state).toBe('committed');
    expect(await engine.accounts()).toEqual([1]);
  });

  test('messages enlisted in a transaction of the service are dropped when it rolls back', async () => {
    const { engine, layer, producer } = bench;
    let settle = async (): Promise<unknown> => undefined;
    const mine = new Error('no');
    const thrown = await failure(
      layer.begin(async (tx) => {
        const enlisted = await producer.enlist(layer.enlistable(tx), message);
        settle = () => enlisted.settle(layer.database);
        await layer.insert(tx, 1);
        throw mine;
      }),
    );
    expect(thrown).toBe(mine);
    expect(await settle()).toMatchObject({ outcome: 'rolledBack' });
    expect(bench.atBroker().state).toBe('rolledBack');
    expect(await engine.accounts()).toEqual([]);
  });

  test('a database where an open transaction is meant is refused, and so are its messages', async () => {
    const { layer, producer, broker } = bench;
    const thrown = await failure(producer.enlist(layer.database as never, message));
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED' });
    expect(thrown.message).toContain('open transaction');
    expect(broker.transactions.size).toBe(0);
  });

  test('a transaction that has ended is refused', async () => {
    const { engine, layer, producer, broker } = bench;
    let kept: Tx | undefined;
    await layer.begin(async (tx) => {
      kept = tx;
      await layer.insert(tx, 1);
    });
    const thrown = await failure(
      (async () => producer.enlist(layer.enlistable(kept as Tx), message))(),
    );
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED' });
    expect(broker.transactions.size).toBe(0);
    expect(await engine.accounts()).toEqual([1]);
  });

  test('a transaction that a COMMIT of its own has ended is refused, and its messages are not prepared', async () => {
    const { layer, producer, broker } = bench;
    let thrown: unknown;
    await layer
      .begin(async (tx) => {
        await layer.insert(tx, 1);
        await layer.run(tx, 'commit');
        thrown = await failure(producer.enlist(layer.enlistable(tx), message));
      })
      // Some layers find out at their own COMMIT.
      .catch(() => undefined);
    expect(thrown).toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('no transaction is open'),
    });
    expect(broker.transactions.size).toBe(0);
  });

  test('an enlisted transaction that ended before its COMMIT does not verify', async () => {
    const { layer, producer } = bench;
    let thrown: unknown;
    await layer
      .begin(async (tx) => {
        const enlisted = await producer.enlist(layer.enlistable(tx), message);
        await layer.insert(tx, 1);
        await layer.run(tx, 'rollback');
        thrown = await failure(enlisted.verify());
      })
      .catch(() => undefined);
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED' });
  });

  test('what is no open transaction of the layer is refused in a sentence', () => {
    for (const { what, make } of bench.layer.refused) {
      expect(() => make()).toThrow(/^from[A-Z]\w+ /);
      expect({ what, thrown: errorOf(make) }).toMatchObject({
        thrown: { code: expect.stringMatching(/^(INVALID_CONFIGURATION|TRANSACTION_MISUSED)$/) },
      });
    }
  });
}

function errorOf(make: () => unknown): unknown {
  try {
    return make();
  } catch (error) {
    return error;
  }
}
