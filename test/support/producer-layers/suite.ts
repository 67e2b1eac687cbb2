import { describe } from '@jest/globals';
import { useBench } from './bench.js';
import { describeEnlisting } from './enlisting.js';
import { describeErrors } from './errors.js';
import type { Layer } from './layer.js';
import { describeLimits } from './limits.js';
import { describeMisuse } from './misuse.js';
import { describeTransactions } from './transactions.js';

/*
 * One suite for every query builder and ORM, on every engine that it works with: the two ways to
 * use it, and every way that is known to use it wrongly. What must hold is the same for all: the
 * broker hears what became of the local transaction, or nothing.
 */

export function describeLayer<Tx>(layer: Layer<Tx>): void {
  describe.each(layer.engines.map((name) => [name]))(`${layer.name} on %s`, (name) => {
    const bench = useBench(layer, name);
    describeTransactions(bench);
    describeMisuse(bench);
    describeEnlisting(bench);
    describeLimits(bench);
    describeErrors(bench, name);
  });
}
