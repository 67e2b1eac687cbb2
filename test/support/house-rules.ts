import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/*
 * The rules of the house that a compiler does not hold. Each is a function from a file to what is
 * wrong with it, so that a planted sample can show that the rule still bites.
 */

/** Path from the root with `/`, and what is in it. */
export interface SourceFile {
  path: string;
  text: string;
}

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const NOT_OURS = new Set(['node_modules', 'dist', 'coverage', '.git', '.local', '.cache']);
const TEXT = /(\.(ts|mjs|js|json|md|ya?ml|html|css|sh|sql)|Dockerfile|\/run|\.gitignore)$/;

/** Everything that may be committed; asks no git, which a test machine may not have. */
function allFiles(folder = ROOT): SourceFile[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return NOT_OURS.has(entry.name) ? [] : allFiles(path);
    if (!entry.isFile() || !TEXT.test(path)) return [];
    return [{ path: relative(ROOT, path).split(sep).join('/'), text: readFileSync(path, 'utf8') }];
  });
}

export const FILES = allFiles();
export const SOURCES = FILES.filter(({ path }) => /\/src\/.*\.ts$/.test(path));

// ---- floors

interface Floor {
  folder: string;
  /** Folders it may import; each stands earlier in the table, so it can describe no cycle. */
  below: string[];
  /** The packages it may import; absent: any. */
  packages?: RegExp;
}

const PROTOCOL = 'protocol/src/';
const DOMAIN = 'broker/src/domain/';
const SIDE_BY_SIDE = ['store', 'rabbit', 'callback', 'observe'].map(
  (name) => `broker/src/${name}/`,
);
/** Webhooks are consumers: the one place of the broker that may import the consumer SDK. */
const NOTIFY = 'broker/src/notify/';
const ENGINE = 'broker/src/engine/';
const HTTP = 'broker/src/http/';
const DATABASE = 'database/src/';
const CONSUMER_SDK = 'consumer-sdk/src/';
const SDKS = ['producer-sdk/src/', CONSUMER_SDK];
const LOCAL_SERVERS = 'local-servers/src/';

export const FLOORS: Floor[] = [
  { folder: PROTOCOL, below: [], packages: /^zod$/ },
  // Computes hashes and checksums; no I/O and no clock.
  { folder: DOMAIN, below: [PROTOCOL], packages: /^node:(crypto|zlib)$/ },
  ...SIDE_BY_SIDE.map((folder) => ({ folder, below: [PROTOCOL, DOMAIN] })),
  // Ports in, no drivers.
  { folder: ENGINE, below: [PROTOCOL, DOMAIN], packages: /^$/ },
  { folder: HTTP, below: [PROTOCOL, DOMAIN] },
  { folder: DATABASE, below: [PROTOCOL] },
  ...SDKS.map((folder) => ({ folder, below: [PROTOCOL, DATABASE] })),
  { folder: NOTIFY, below: [PROTOCOL, DOMAIN, CONSUMER_SDK] },
  // config.ts, main.ts and the wiring.
  { folder: 'broker/src/', below: [PROTOCOL, DOMAIN, ...SIDE_BY_SIDE, ENGINE, HTTP, NOTIFY] },
  { folder: LOCAL_SERVERS, below: [] },
  { folder: 'soak/', below: [PROTOCOL, DATABASE, ...SDKS, LOCAL_SERVERS] },
  { folder: 'bench/', below: [PROTOCOL, DATABASE, ...SDKS, LOCAL_SERVERS] },
  { folder: 'examples/', below: [PROTOCOL, DATABASE, ...SDKS, LOCAL_SERVERS] },
];

/** Our packages by their public door. The broker has none: it is run, not imported. */
const DOORS: Record<string, string> = {
  '@escrowmq/protocol': PROTOCOL,
  '@escrowmq/database': DATABASE,
  '@escrowmq/producer': SDKS[0] ?? '',
  '@escrowmq/consumer': SDKS[1] ?? '',
  '@escrowmq/local-servers': LOCAL_SERVERS,
};

/** The longest folder wins: `broker/src/` is only what lies in no other. */
function floorOf(path: string): Floor | undefined {
  const holding = FLOORS.filter(({ folder }) => path.startsWith(folder));
  return holding.sort((a, b) => b.folder.length - a.folder.length)[0];
}

const workspaceOf = (path: string) => /^(examples\/[^/]+|[^/]+)\//.exec(path)?.[1];

/** Whether `specifier`, as it stands in a file of `floor`, goes down and through a door. */
function mayImport(floor: Floor, path: string, specifier: string): boolean {
  if (specifier.startsWith('.')) {
    const target = posix.join(posix.dirname(path), specifier);
    if (workspaceOf(target) !== workspaceOf(path)) return false;
    const to = floorOf(target);
    return to === floor || (to !== undefined && floor.below.includes(to.folder));
  }
  if (specifier.startsWith('@escrowmq/')) {
    const door =
      DOORS[specifier.replace(/^(@escrowmq\/(?:database|producer|consumer))\/[a-z0-9-]+$/, '$1')];
    return door !== undefined && floor.below.includes(door);
  }
  return floor.packages === undefined || floor.packages.test(specifier);
}

/** Type imports, re-exports, `import(…)` and `typeof import(…)` count like any other. */
export function climbingImports({ path, text }: SourceFile): string[] {
  const floor = floorOf(path);
  if (floor === undefined) return [`${path} lies in no folder that the table of floors names`];
  return ts
    .preProcessFile(text, true, true)
    .importedFiles.filter(({ fileName }) => !mayImport(floor, path, fileName))
    .map(({ fileName }) => `${path} must not import ${fileName}`);
}

// ---- the syntax tree, for rules that comments must not trip

function nodesOf({ path, text }: SourceFile): ts.Node[] {
  const nodes: ts.Node[] = [];
  const visit = (node: ts.Node): void => {
    nodes.push(node);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ES2023));
  return nodes;
}

// A bare word is no statement: `Pick<Store, 'insert'>` names an operation.
const SQL =
  /^\s*(select\s|insert\s+(ignore\s+)?into\s|replace\s+into\s|update\s+\S+\s+set\s|update\s*$|delete\s+from\s|create\s+(unique\s+)?(table|index)\s|with\s+\S+\s+as\s*\()/i;

export function sqlOutsideStore(file: SourceFile): string[] {
  if (!file.path.startsWith('broker/src/') || file.path.startsWith('broker/src/store/')) return [];
  return nodesOf(file).flatMap((node) =>
    (ts.isStringLiteralLike(node) || ts.isTemplateHead(node)) && SQL.test(node.text)
      ? [`${file.path}: SQL belongs into broker/src/store: ${node.text.trim().slice(0, 40)}`]
      : [],
  );
}

const READS_ENVIRONMENT = /^(protocol|database|broker|producer-sdk|consumer-sdk)\/src\//;
const MAY_READ_ENVIRONMENT = new Set([
  'broker/src/config.ts',
  'broker/src/main.ts',
  'producer-sdk/src/outbox/outbox-command.ts',
]);

function readsEnvironment(node: ts.Node): boolean {
  const isProcess = (expression: ts.Node) =>
    (ts.isIdentifier(expression) && expression.text === 'process') ||
    (ts.isPropertyAccessExpression(expression) && expression.name.text === 'process');
  if (ts.isPropertyAccessExpression(node)) {
    return node.name.text === 'env' && isProcess(node.expression);
  }
  if (ts.isElementAccessExpression(node)) {
    const { argumentExpression: key } = node;
    return ts.isStringLiteralLike(key) && key.text === 'env' && isProcess(node.expression);
  }
  // const { env } = process
  if (ts.isVariableDeclaration(node) && ts.isObjectBindingPattern(node.name)) {
    return node.initializer !== undefined && isProcess(node.initializer);
  }
  return (
    ts.isImportDeclaration(node) &&
    ts.isStringLiteral(node.moduleSpecifier) &&
    /^(node:)?process$/.test(node.moduleSpecifier.text)
  );
}

export function environmentReads(file: SourceFile): string[] {
  if (!READS_ENVIRONMENT.test(file.path) || MAY_READ_ENVIRONMENT.has(file.path)) return [];
  return nodesOf(file).some(readsEnvironment)
    ? [`${file.path} reads the environment; take what it needs as a parameter`]
    : [];
}

// ---- files

export function barrels({ path }: SourceFile): string[] {
  const inside = path.startsWith('broker/src/') || /^[^/]+\/src\/.+\/index\.ts$/.test(path);
  return inside && path.endsWith('/index.ts') ? [`${path} is a barrel file`] : [];
}

/** A file should fit a head; most stay under 300 lines. */
export const LINES_MAX = 400;

export function tooLong({ path, text }: SourceFile): string[] {
  const lines = text.trimEnd().split('\n').length;
  return lines > LINES_MAX ? [`${path} has ${lines} lines, more than ${LINES_MAX}`] : [];
}

// Somebody's home or work folder. /home/node is where official Node images live.
const MACHINE_PATH = /(?<![\w.])\/(?:work|root|Users|home(?!\/node\b))\/[\w.-]+|\b[A-Z]:\\Users\\/;
// An installer that was pointed at a mirror writes its address into the lock file.
const OTHER_REGISTRY = /"resolved": "(?!https:\/\/registry\.npmjs\.org\/)https?:[^"]*"/;

export function tracesOfAMachine({ path, text }: SourceFile): string[] {
  return [MACHINE_PATH, OTHER_REGISTRY].flatMap((pattern) => {
    const found = pattern.exec(text)?.[0];
    return found === undefined ? [] : [`${path} names ${found}, which only one machine has`];
  });
}

// ---- pages that must agree with the code

export const difference = (from: readonly string[], other: readonly string[]) =>
  from.filter((name) => !other.includes(name));

const codesOf = (page: string) =>
  [...page.matchAll(/^### `?([A-Z][A-Z0-9_]*)`?\s*$/gm)].map((match) => match[1] ?? '');

export function errorPageFaults(page: string, codes: readonly string[]): string[] {
  const documented = codesOf(page);
  return [
    ...difference(codes, documented).map((code) => `docs/errors.md does not explain ${code}`),
    ...difference(documented, codes).map(
      (code) => `docs/errors.md explains ${code}, which is gone`,
    ),
    ...documented
      .filter((code, index) => documented.indexOf(code) !== index)
      .map((code) => `docs/errors.md explains ${code} twice`),
  ];
}

export function variablePageFaults(page: string, variables: readonly string[]): string[] {
  const named = [...page.matchAll(/`(ESCROW_[A-Z0-9_]+)`/g)].map((match) => match[1] ?? '');
  return difference(variables, named).map((name) => `docs/operations.md does not name ${name}`);
}

/** A page of docs/; empty when it is missing, so that the test names everything it lacks. */
export function page(name: string): string {
  const path = join(ROOT, 'docs', name);
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
