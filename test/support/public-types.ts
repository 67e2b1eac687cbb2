import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/*
 * What a user's editor shows of a package, read as the editor reads it: the declarations that its
 * package.json exports, by the compiler. Every name that can be reached from there, through whatever
 * type, is asked for its sentence, and a field besides for what the sentence alone may leave open: a
 * number for its unit, and what a user may leave out for its default. Types taken from a zod schema have
 * neither names nor sentences, so there may be none.
 */

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** Who makes a value of a type, as far as was seen: an exported type by itself says neither. */
type Direction = 'given' | 'answered' | 'either';
const TURNED = { given: 'answered', answered: 'given', either: 'either' } as const;

/** What is missing, where. */
export interface Gap {
  /** From the root, with its line: `producer-sdk/dist/options.d.ts:12`. */
  place: string;
  /** As in `ProducerOptions.timeoutMs`. */
  name: string;
  missing: 'sentence' | 'unit' | 'default' | 'name';
}

interface Entry {
  types?: string;
  import?: { types?: string };
}

/** The declarations that the package in a folder has for its users. */
export function entriesOf(folder: string): string[] {
  const text = readFileSync(join(ROOT, folder, 'package.json'), 'utf8');
  const { exports } = JSON.parse(text) as { exports: Record<string, string | Entry> };
  return Object.values(exports).flatMap((entry) => {
    const types = typeof entry === 'string' ? undefined : (entry.import?.types ?? entry.types);
    return types === undefined ? [] : [join(ROOT, folder, types)];
  });
}

/** An editor's settings, but for declarations that belong to others: reading those takes seconds. */
export const SETTINGS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  // Without a browser's, which are the largest.
  lib: ['lib.es2023.d.ts'],
  module: ts.ModuleKind.NodeNext,
  strict: true,
  exactOptionalPropertyTypes: true,
  types: [],
  noEmit: true,
};

/** Finds what is ours and nothing else: drivers, frameworks and zod are not ours to explain. */
export function resolverOfOurs(host: ts.ModuleResolutionHost) {
  const cache = ts.createModuleResolutionCache(ROOT, (name) => name, SETTINGS);
  const esm = ts.ModuleKind.ESNext;
  return (literals: readonly ts.StringLiteralLike[], containing: string) =>
    literals.map(({ text }) =>
      /^(\.|@escrowmq\/)/.test(text)
        ? ts.resolveModuleName(text, containing, SETTINGS, host, cache, undefined, esm)
        : { resolvedModule: undefined },
    );
}

function programOf(entries: readonly string[]): ts.Program {
  const host = ts.createCompilerHost(SETTINGS);
  host.resolveModuleNameLiterals = resolverOfOurs(host);
  return ts.createProgram(entries, SETTINGS, host);
}

export interface PublicTypes {
  /** Everything reachable that lacks something. */
  gaps(): Gap[];
  /** By field: what an exported interface says in its `@default`; for a schema, its input's. */
  defaultsOf(name: string): Map<string, string>;
}

/** What these declarations show; what others than us declare is left out. */
export function publicTypesOf(entries: readonly string[]): PublicTypes {
  const program = programOf(entries);
  const checker = program.getTypeChecker();
  const exported = entries.flatMap((entry) => {
    const file = program.getSourceFile(entry);
    const symbol = file && checker.getSymbolAtLocation(file);
    if (symbol !== undefined) return checker.getExportsOfModule(symbol);
    throw new Error(`${relative(ROOT, entry)} is not there, or exports nothing: npm run build`);
  });
  return {
    gaps() {
      const walk = new Walk(program);
      for (const symbol of exported) walk.export(symbol);
      return walk.gaps();
    },
    defaultsOf(name) {
      const symbol = exported.find((each) => each.name === name);
      if (symbol === undefined) throw new Error(`nothing exports ${name}`);
      const type = inputOf(checker, symbol);
      const said = type.getProperties().flatMap((property): [string, string][] => {
        const tag = property.getJsDocTags(checker).find((each) => each.name === 'default');
        return tag === undefined ? [] : [[property.name, ts.displayPartsToString(tag.text)]];
      });
      return new Map(said);
    },
  };
}

/** Of a schema, which is a `Schema<Output, Input>`, what it takes; of a type, itself. */
function inputOf(checker: ts.TypeChecker, given: ts.Symbol): ts.Type {
  const isAlias = (given.flags & ts.SymbolFlags.Alias) !== 0;
  const symbol = isAlias ? checker.getAliasedSymbol(given) : given;
  if (symbol.valueDeclaration === undefined) return checker.getDeclaredTypeOfSymbol(symbol);
  const type = checker.getTypeOfSymbol(symbol);
  const [output, input = output] = checker.getTypeArguments(type as ts.TypeReference);
  return input ?? type;
}

type Member = ts.TypeElement | ts.ClassElement;

const isMember = (node: ts.Node): node is Member =>
  ts.isPropertySignature(node) ||
  ts.isMethodSignature(node) ||
  ts.isPropertyDeclaration(node) ||
  ts.isMethodDeclaration(node) ||
  ts.isGetAccessorDeclaration(node) ||
  ts.isConstructorDeclaration(node);

const isNamed = (node: ts.Node): boolean =>
  ts.isInterfaceDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isClassDeclaration(node) ||
  ts.isFunctionDeclaration(node) ||
  ts.isVariableDeclaration(node);

/** What is there when a program runs, and so comes from us. */
const isCode = (node: ts.Node): boolean =>
  ts.isFunctionDeclaration(node) || ts.isClassDeclaration(node) || ts.isVariableDeclaration(node);

/** The only word that a field can have, as in `kind: 'closed'`: what it stands in says the rest. */
const isTag = (node: Member): boolean =>
  ts.isPropertySignature(node) &&
  node.type !== undefined &&
  ts.isLiteralTypeNode(node.type) &&
  ts.isStringLiteral(node.type.literal);

/** An editor shows such a type as what it is made of, on many lines. */
const TAKEN_FROM_ZOD = /\bz\.(infer|input|output|Zod(?!Type\b|Error\b)\w+)/;

/** A key that is a sentence itself. */
const isSentence = (name: string): boolean => /^'.* .*'$/.test(name);

class Walk {
  readonly #program: ts.Program;
  readonly #checker: ts.TypeChecker;
  readonly #seen = {
    given: new Set<ts.Node>(),
    answered: new Set<ts.Node>(),
    either: new Set<ts.Node>(),
  };
  readonly #gaps = new Map<string, Gap>();
  /** What may be left out and has no default: a fault where users give it and never get it. */
  readonly #open = new Map<ts.Node, { directions: Set<Direction>; name: string }>();

  constructor(program: ts.Program) {
    this.#program = program;
    this.#checker = program.getTypeChecker();
  }

  gaps(): Gap[] {
    for (const [node, { directions, name }] of this.#open) {
      if (directions.has('given') && !directions.has('answered')) this.#add(node, name, 'default');
    }
    return [...this.#gaps.values()].sort((a, b) => (a.place < b.place ? -1 : 1));
  }

  export(symbol: ts.Symbol): void {
    this.#symbol(symbol, 'either');
  }

  #symbol(given: ts.Symbol, direction: Direction): void {
    const isAlias = (given.flags & ts.SymbolFlags.Alias) !== 0;
    const symbol = isAlias ? this.#checker.getAliasedSymbol(given) : given;
    for (const declaration of symbol.declarations ?? []) {
      if (!isNamed(declaration) || this.#isForeign(declaration)) continue;
      if (this.#seen[direction].has(declaration)) continue;
      this.#seen[direction].add(declaration);
      this.#ask(declaration, symbol, symbol.name);
      if (TAKEN_FROM_ZOD.test(declaration.getText())) this.#add(declaration, symbol.name, 'name');
      const towards = direction === 'either' && isCode(declaration) ? 'answered' : direction;
      ts.forEachChild(declaration, (child) => this.#node(child, symbol.name, towards));
    }
  }

  #isForeign(declaration: ts.Node): boolean {
    const file = declaration.getSourceFile();
    return (
      file.fileName.includes('/node_modules/') || this.#program.isSourceFileDefaultLibrary(file)
    );
  }

  #node(node: ts.Node, within: string, direction: Direction): void {
    if (isMember(node)) {
      this.#member(node, within, direction);
      return;
    }
    // Of what stands behind `keyof`, only the names are shown.
    if (ts.isTypeOperatorNode(node) && node.operator === ts.SyntaxKind.KeyOfKeyword) return;
    if (ts.isTypeReferenceNode(node)) this.#name(node.typeName, direction);
    if (ts.isExpressionWithTypeArguments(node)) this.#name(node.expression, direction);
    if (ts.isTypeQueryNode(node)) this.#name(node.exprName, direction);
    if (ts.isImportTypeNode(node) && node.qualifier) this.#name(node.qualifier, direction);
    const towards = ts.isParameter(node) ? TURNED[direction] : direction;
    ts.forEachChild(node, (child) => this.#node(child, within, towards));
  }

  #name(name: ts.Node, direction: Direction): void {
    const symbol = this.#checker.getSymbolAtLocation(name);
    if (symbol !== undefined) this.#symbol(symbol, direction);
  }

  #member(node: Member, within: string, direction: Direction): void {
    const isPrivate = (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private) !== 0;
    if (isPrivate || (node.name !== undefined && ts.isPrivateIdentifier(node.name))) return;
    const name = node.name?.getText() ?? 'constructor';
    const path = `${within}.${name}`;
    const symbol = this.#checker.getSymbolAtLocation(node.name ?? node);
    if (!isTag(node) && !isSentence(name)) this.#ask(node, symbol, path);
    if (symbol !== undefined && isOpen(symbol)) {
      const open = this.#open.get(node) ?? { directions: new Set(), name: path };
      open.directions.add(direction);
      this.#open.set(node, open);
    }
    ts.forEachChild(node, (child) => this.#node(child, path, direction));
  }

  #ask(node: ts.Node, symbol: ts.Symbol | undefined, name: string): void {
    const own = ts.getJSDocCommentsAndTags(node).map((doc) => doc.comment ?? '');
    const said = symbol?.getDocumentationComment(this.#checker) ?? [];
    const text = ts.displayPartsToString(said) || own.map(String).join(' ');
    if (text.trim() === '') this.#add(node, name, 'sentence');
    else if (this.#isNumber(node) && !hasUnit(name, text)) this.#add(node, name, 'unit');
  }

  #isNumber(node: ts.Node): boolean {
    if (!ts.isPropertySignature(node) && !ts.isPropertyDeclaration(node)) return false;
    const type = this.#checker.getNonNullableType(this.#checker.getTypeAtLocation(node));
    return (type.flags & ts.TypeFlags.Number) !== 0;
  }

  #add(node: ts.Node, name: string, missing: Gap['missing']): void {
    const file = node.getSourceFile();
    const line = file.getLineAndCharacterOfPosition(node.getStart()).line + 1;
    const place = `${relative(ROOT, file.fileName)}:${line}`;
    this.#gaps.set(`${place} ${name} ${missing}`, { place, name, missing });
  }
}

const isOpen = (symbol: ts.Symbol): boolean =>
  (symbol.flags & ts.SymbolFlags.Optional) !== 0 &&
  !symbol.getJsDocTags().some((tag) => tag.name === 'default');

/** In the name as its last word, or said. */
const UNIT_NAME = /(Ms|Seconds|Bytes|Chars)(Max)?$/;
const UNIT_SAID =
  /\b(milliseconds|ms|seconds|bytes|numbers? of|how many|how often|share|part|ports?|status|place|at a time|from [01])\b/i;
const hasUnit = (name: string, text: string) => UNIT_NAME.test(name) || UNIT_SAID.test(text);
