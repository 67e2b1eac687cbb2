import { describe } from '@jest/globals';
import { describeBatch } from './consumer-layers/batch.js';
import { useBench } from './consumer-layers/bench.js';
import { describeLostCommit } from './consumer-layers/commit.js';
import { describeLatest } from './consumer-layers/latest.js';
import type { ConsumerLayer } from './consumer-layers/layer.js';
import { describeMisuse } from './consumer-layers/misuse.js';
import { describeOnce } from './consumer-layers/once.js';

/*
 * One suite for every driver, query builder and ORM that a consumer's handler may use, on every
 * engine that it works with. What must hold is the same for all: what a message does to the
 * database and the note of it stand together or not at all.
 */

/** @param isDriver whether the adapter sends COMMIT itself @default false */
export function describeConsumerLayer<Tx>(layer: ConsumerLayer<Tx>, isDriver = false): void {
  describe.each(layer.engines.map((name) => [name]))(
    `a consumer by ${layer.name} on %s`,
    (name) => {
      const bench = useBench(layer, name, isDriver);
      describe('once', () => describeOnce(bench));
      describe('once, used wrongly', () => describeMisuse(bench));
      describe('latest', () => describeLatest(bench));
      describe('onceBatch', () => describeBatch(bench));
      describe('COMMIT', () => describeLostCommit(bench, isDriver));
    },
  );
}
