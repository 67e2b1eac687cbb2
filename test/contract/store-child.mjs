/*
 * Another broker instance, as far as the store is concerned: a process of its own, on the built
 * code. JavaScript on purpose, as it runs without jest's transform.
 *
 *   store-child.mjs open <url>            says `opened`, or the error; ends with its input
 *   store-child.mjs claim <check|forward> <url> <most>
 *                                         waits for a line of input, claims until nothing is due
 *                                         or it has `most`, and says which ids it got, as JSON
 */
import { once } from 'node:events';
import { openStore } from '../../broker/dist/store/open-store.js';

const [command, ...args] = process.argv.slice(2);

/** Small claims, so that two processes come across each other often. */
const ROWS_PER_CLAIM = 5;
const LEASE_MS = 60_000;

async function open(url) {
  try {
    const store = await openStore(url);
    process.stdout.write('opened\n');
    process.stdin.resume();
    await once(process.stdin, 'end');
    await store.close();
  } catch (error) {
    process.stdout.write(`${error.code}: ${error.message}\n`);
  }
}

async function claim(what, url, most) {
  const store = await openStore(url);
  process.stdout.write('ready\n');
  await once(process.stdin, 'data');
  process.stdin.destroy();
  const limits = {
    limit: ROWS_PER_CLAIM,
    leaseMs: LEASE_MS,
    exceptGroups: [],
    bytesMax: 1_000_000,
  };
  const got = [];
  while (got.length < Number(most)) {
    const { due } = await (what === 'check'
      ? store.claimDueChecks(limits)
      : store.claimDueForwards(limits));
    if (due.length === 0) break;
    got.push(...due.map(({ id }) => id));
  }
  process.stdout.write(`${JSON.stringify(got)}\n`);
  await store.close();
}

await (command === 'open' ? open(args[0]) : claim(...args));
