/*
 * Module hooks: a module of the table is replaced by one that passes everything on and wraps one
 * export. JavaScript on purpose, as it runs in a thread of its own before any transform.
 */
const FAILPOINT = new URL('./wrappers.mjs', import.meta.url).href;

/** Where the ports are made, as the end of a path: the export, and what wraps it. */
const WRAPPED = [
  ['/broker/dist/store-at-start.js', 'openStoreWhenThere', 'opensStore'],
  ['/broker/dist/rabbit/open-rabbit.js', 'openRabbit', 'opensRabbit'],
  ['/broker/dist/callback/asker.js', 'createAsker', 'createsAsker'],
  ['/producer-sdk/dist/client/http-exchange.js', 'exchange', 'exchanges'],
  ['/consumer-sdk/dist/delivery/outstanding.js', 'Outstanding', 'acknowledges'],
];

export async function load(url, context, nextLoad) {
  const [, name, wrapper] = WRAPPED.find(([path]) => url.endsWith(path)) ?? [];
  if (name === undefined) return nextLoad(url, context);
  const original = JSON.stringify(`${url}?original`);
  return {
    format: 'module',
    shortCircuit: true,
    source: `
      import * as original from ${original};
      import { ${wrapper} } from ${JSON.stringify(FAILPOINT)};
      export * from ${original};
      export const ${name} = ${wrapper}(original.${name});
    `,
  };
}
