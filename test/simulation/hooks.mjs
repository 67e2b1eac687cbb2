import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { transform } from '@swc/core';

/*
 * Lets plain Node run the simulation from its sources: types are stripped, and what it imports from
 * the sources of the packages comes from their build, which is what is shipped.
 */
const HERE = new URL('.', import.meta.url).href;
const PACKAGE_SOURCES = /^(\.\.\/\.\.\/(?:broker|producer-sdk|consumer-sdk))\/src\//;

export function resolve(specifier, context, next) {
  if (!specifier.startsWith('.') || !context.parentURL?.startsWith(HERE)) {
    return next(specifier, context);
  }
  const built = specifier.replace(PACKAGE_SOURCES, '$1/dist/');
  return next(built === specifier ? specifier.replace(/\.js$/, '.ts') : built, context);
}

export async function load(url, context, next) {
  if (!url.startsWith(HERE) || !url.endsWith('.ts')) return next(url, context);
  const source = await readFile(fileURLToPath(url), 'utf8');
  const { code } = await transform(source, {
    filename: fileURLToPath(url),
    jsc: { parser: { syntax: 'typescript' }, target: 'es2022' },
    module: { type: 'es6' },
    sourceMaps: 'inline',
  });
  return { format: 'module', source: code, shortCircuit: true };
}
