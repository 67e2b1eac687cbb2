import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import ts from 'typescript';

/*
 * node scripts/transpile.mjs <folder>    a workspace and those that it refers to: src into dist
 *
 * The same JavaScript as `tsc -b` writes, without looking at types: nobody who runs the demo changed
 * any, and it takes a fifth of the time and none of the packages that only types come from. Leaves no
 * record behind, so a later `tsc -b` builds and checks everything.
 */

const BASE = 'tsconfig.base.json';

const [start = ''] = process.argv.slice(2);
const { config } = ts.readConfigFile(BASE, ts.sys.readFile);
const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, '.');
const compilerOptions = {
  ...options,
  sourceMap: false,
  inlineSources: false,
  // What NodeNext reads in the package.json beside a file, which is not looked at here.
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
};
const settingsChangedAt = statSync(BASE).mtimeMs;
const faults = [...projectsFrom(start)].flatMap(transpileProject);
if (faults.length > 0) {
  process.stderr.write(
    ts.formatDiagnostics(faults, {
      getCanonicalFileName: (name) => name,
      getCurrentDirectory: () => process.cwd(),
      getNewLine: () => '\n',
    }),
  );
  process.exitCode = 1;
}

/** That project, and what it refers to, and so on. */
function projectsFrom(folder, found = new Set()) {
  if (found.has(folder)) return found;
  found.add(folder);
  const { references = [] } = JSON.parse(readFileSync(join(folder, 'tsconfig.json'), 'utf8'));
  for (const { path } of references) projectsFrom(normalize(join(folder, path)), found);
  return found;
}

/** @returns what does not parse */
function transpileProject(folder) {
  return readdirSync(join(folder, 'src'), { recursive: true })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => {
      const source = join(folder, 'src', name);
      const target = join(folder, 'dist', name.replace(/ts$/, 'js'));
      return isUpToDate(source, target) ? [] : transpile(source, target);
    });
}

function isUpToDate(source, target) {
  const builtAt = statSync(target, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return builtAt > Math.max(statSync(source).mtimeMs, settingsChangedAt);
}

function transpile(source, target) {
  const { outputText, diagnostics } = ts.transpileModule(readFileSync(source, 'utf8'), {
    fileName: source,
    compilerOptions,
    reportDiagnostics: true,
  });
  if (diagnostics.length > 0) return diagnostics;
  mkdirSync(dirname(target), { recursive: true });
  // Renamed, as half a file after Ctrl-C would pass for up to date.
  const unfinished = `${target}.${process.pid}`;
  writeFileSync(unfinished, outputText);
  renameSync(unfinished, target);
  return [];
}
