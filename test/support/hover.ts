import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { resolverOfOurs, SETTINGS } from './public-types.js';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** Is never written: the packages are found from where it would stand. */
const FILE = join(ROOT, 'test', 'support', 'a-users-program.ts');

export interface Hover {
  /** The line of code: `(property) ProducerOptions.brokers: string[]`. */
  code: string;
  /** The text below it, with its tags. */
  text: string;
}

/** What an editor shows of a program that uses the packages as they are built. */
export interface Editor {
  /**
   * What it shows over a word of the program.
   *
   * @param before what stands right before the word, where that alone stands more than once
   */
  over(word: string, before?: string): Hover;
}

/** Opens a program in the language service that editors ask. */
export function openInEditor(program: string): Editor {
  const service = ts.createLanguageService({
    getScriptFileNames: () => [FILE],
    getScriptVersion: () => '1',
    getScriptSnapshot: (path) => {
      const text = path === FILE ? program : ts.sys.readFile(path);
      return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text);
    },
    getCurrentDirectory: () => ROOT,
    getCompilationSettings: () => SETTINGS,
    getDefaultLibFileName: (options) => ts.getDefaultLibFilePath(options),
    fileExists: (path) => path === FILE || ts.sys.fileExists(path),
    readFile: ts.sys.readFile,
    readDirectory: ts.sys.readDirectory,
    directoryExists: ts.sys.directoryExists,
    getDirectories: ts.sys.getDirectories,
    resolveModuleNameLiterals: resolverOfOurs(ts.sys),
  });
  return {
    over(word, before = '') {
      const at = program.indexOf(before + word);
      const info = at < 0 ? undefined : service.getQuickInfoAtPosition(FILE, at + before.length);
      if (info === undefined) throw new Error(`nothing is shown over ${before}${word}`);
      const tags = (info.tags ?? []).map(
        ({ name, text }) => `@${name} ${ts.displayPartsToString(text)}`,
      );
      return {
        code: ts.displayPartsToString(info.displayParts),
        text: [ts.displayPartsToString(info.documentation), ...tags].join('\n'),
      };
    },
  };
}
