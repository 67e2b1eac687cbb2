/*
 * The better-sqlite3 that tests use on this Node. JavaScript on purpose: jest's configuration and
 * child processes read it.
 *
 * Version 12 is what Node 20 can load. Version 13 carries its binaries in the package and needs the
 * Node-API of 22.14. Version 12, compiled against the headers of Node 24.19 or later, aborts the
 * process when it collects a statement (nodejs/node#65446), so it is not used where 13 loads.
 */

const [major, minor] = process.versions.node.split('.').map(Number);

/** What to import in place of `better-sqlite3`; the second name is an alias in package.json. */
export const BETTER_SQLITE3 =
  major > 22 || (major === 22 && minor >= 14) ? 'better-sqlite3-13' : 'better-sqlite3';
