import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePorts } from '@escrowmq/local-servers';
import ts from 'typescript';
import { ROOT } from './packed.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from './servers.js';

/** The snippets of a page in this language, such as those of `README.md` in `bash`. */
export async function blocksOf(page: string, language: string): Promise<string[]> {
  const text = await readFile(join(ROOT, page), 'utf8');
  const found = text.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, 'gm'));
  return [...found].map(([, source = '']) => source);
}

/** The program of the README, with a topic that no other run on the same RabbitMQ has. */
export async function readmeProgram(): Promise<string> {
  const [program, ...more] = await blocksOf('README.md', 'ts');
  if (program === undefined || more.length > 0) throw new Error('the README has one program');
  return program.replaceAll("'sign-up'", `'${uniqueName('sign-up')}'`);
}

/** What the program takes from its environment. */
export async function readmeEnvironment(brokerUrl: string): Promise<Record<string, string>> {
  const [port] = await freePorts(1);
  return {
    PATH: process.env.PATH ?? '',
    BROKER_URL: brokerUrl,
    DATABASE_URL: await freshMysqlDatabase(),
    RABBITMQ_URL: rabbitmqUrl(),
    SIGNING_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
    PORT: String(port),
  };
}

/** What the program prints once all of it has worked. */
export const README_PRINTS = /^settled: true, found by phone: \[ \{ user_id: \d+ \} \]\n$/;

/** The same program as JavaScript. */
export function withoutTypes(source: string): string {
  const { ESNext } = ts.ModuleKind;
  const compilerOptions = { module: ESNext, target: ts.ScriptTarget.ES2022 };
  return ts.transpileModule(source, { compilerOptions }).outputText;
}

/** The same program where there is no `await` outside a function. */
export function insideFunction(source: string): string {
  const { statements } = ts.createSourceFile('program.ts', source, ts.ScriptTarget.ES2022);
  const begin = statements.find((statement) => !ts.isImportDeclaration(statement))?.pos ?? 0;
  return `${source.slice(0, begin)}\nvoid (async () => {${source.slice(begin)}})();\n`;
}
