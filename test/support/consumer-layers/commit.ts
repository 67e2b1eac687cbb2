import { createDuplicateFront, latest, once } from '@escrowmq/consumer';
import { mysqlStatement, startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { Dialect } from '../../../database/src/database.js';
import { type Bench, failure, newMessage } from './bench.js';
import type { OpenConsumerLayer } from './layer.js';

/** How the COMMIT of a driver's own adapter looks on the wire, and nothing else that is sent. */
const COMMIT: Partial<Record<Dialect, string | RegExp>> = {
  mysql: mysqlStatement('commit'),
  // A Query message with its length.
  postgres: 'Q\0\0\0\x0bcommit\0',
};
/** The SDK's own, in front of a layer that commits by itself. */
const COMMIT_OF_LAYERS = 'commit and chain';

const TRIALS = 5;

/** A COMMIT whose connection breaks: the client can't tell whether it arrived. */
export function describeLostCommit<Tx>(bench: Bench<Tx>, isDriver: boolean): void {
  let proxy: TcpProxy;
  let layer: OpenConsumerLayer<Tx>;
  let pattern: string | RegExp | undefined;
  beforeAll(async () => {
    const { dialect, url } = bench.engine;
    if (dialect === 'sqlite') return;
    pattern = isDriver ? COMMIT[dialect] : COMMIT_OF_LAYERS;
    proxy = await startTcpProxy(url);
    layer = await bench.openAt(proxy.url);
  });
  afterAll(() => proxy?.close());

  test.each([
    ['before', 'applied'],
    ['after', 'duplicate'],
  ] as const)(
    'when the connection breaks %s COMMIT the outcome is unknown, and the repeat is told: %s (F66)',
    async (when, repeated) => {
      if (pattern === undefined) return;
      const front = createDuplicateFront();
      for (let trial = 1; trial <= TRIALS; trial += 1) {
        const message = newMessage();
        const work = (tx: Tx) => layer.insert(tx, trial);
        const cut = proxy.cutNext(pattern, when);
        const lost = await failure(once(layer.database, message, work, { front }));
        await cut;
        expect(lost).toMatchObject({ code: 'OUTCOME_UNKNOWN' });
        expect(await once(layer.database, message, work, { front })).toBe(repeated);
      }
      expect(await bench.engine.accounts()).toHaveLength(TRIALS);
    },
  );

  test('latest is told likewise, and never applies twice', async () => {
    if (pattern === undefined) return;
    const message = newMessage();
    const work = (tx: Tx) => layer.insert(tx, 1);
    const cut = proxy.cutNext(pattern, 'after');
    const call = () => latest(layer.database, message, { key: 'a', at: 1 }, work);
    expect(await failure(call())).toMatchObject({ code: 'OUTCOME_UNKNOWN' });
    await cut;
    expect(await call()).toBe('duplicate');
    expect(await bench.engine.accounts()).toEqual([1]);
  });
}
