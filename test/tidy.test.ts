import { ERRORS } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { VARIABLES } from '../broker/src/config.js';
import {
  barrels,
  climbingImports,
  difference,
  environmentReads,
  errorPageFaults,
  FILES,
  FLOORS,
  LINES_MAX,
  page,
  SOURCES,
  type SourceFile,
  sqlOutsideStore,
  tooLong,
  tracesOfAMachine,
  variablePageFaults,
} from './support/house-rules.js';

interface Rule {
  name: string;
  files: SourceFile[];
  faults(file: SourceFile): string[];
  /** Each must be found to be wrong. */
  planted: SourceFile[];
  /** Each must pass, although it looks similar. */
  harmless: SourceFile[];
}

/** A file of these lines; the first is its title in the report. */
const at = (path: string, ...lines: string[]) => ({ path, text: lines.join('\n'), line: lines[0] });
/** Put together here, because this file is searched like any other. */
const homeOf = (...names: string[]) => ['', ...names].join('/');

const RULES: Rule[] = [
  {
    name: 'imports go down, and through public doors',
    // The bench, like the tests, takes any part out of the broker to measure it.
    files: SOURCES.filter(({ path }) => !path.startsWith('bench/')),
    faults: climbingImports,
    planted: [
      at('protocol/src/a.ts', "import { uuidv7 } from 'uuidv7';"),
      at('protocol/src/a.ts', "import type { Config } from '../../broker/src/config.js';"),
      at('broker/src/domain/a.ts', "import type { Store } from '../store/store.js';"),
      at('broker/src/domain/a.ts', "import { readFileSync } from 'node:fs';"),
      at('broker/src/store/a.ts', "import { openRabbit } from '../rabbit/open-rabbit.js';"),
      at('broker/src/rabbit/a.ts', "export * from '../callback/asker.js';"),
      at('broker/src/callback/a.ts', "type Log = import('../observe/log.js').Log;"),
      at('broker/src/observe/a.ts', "import { createIntake } from '../engine/intake.js';"),
      at('broker/src/store/mysql/a.ts', "import { createIntake } from '../../engine/intake.js';"),
      at('broker/src/engine/a.ts', "import type { OpenStore } from '../store/store.js';"),
      at('broker/src/engine/a.ts', "import amqplib from 'amqplib';"),
      at('broker/src/engine/a.ts', "const server = await import('../http/server.js');"),
      at('broker/src/http/a.ts', "import type { Intake } from '../engine/intake.js';"),
      at('broker/src/http/a.ts', "import { parseConfig } from '../config.js';"),
      at('broker/src/a.ts', "import { LIMITS } from '../../protocol/src/limits.js';"),
      at('broker/src/a.ts', "import { LIMITS } from '@escrowmq/protocol/src/limits.js';"),
      at('broker/src/a.ts', "import { createProducer } from '@escrowmq/producer';"),
      at('broker/src/a.ts', "import { createConsumer } from '@escrowmq/consumer';"),
      at('broker/src/engine/a.ts', "import type { Message } from '@escrowmq/consumer';"),
      at('broker/src/rabbit/a.ts', "import type { Message } from '@escrowmq/consumer';"),
      at('broker/src/notify/a.ts', "import { createProducer } from '@escrowmq/producer';"),
      at('broker/src/notify/a.ts', "import type { Breaker } from '../callback/breaker.js';"),
      at('consumer-sdk/src/a.ts', "import type { Gate } from '../../broker/src/notify/gate.js';"),
      at('producer-sdk/src/a.ts', "import { once } from '@escrowmq/consumer';"),
      at('consumer-sdk/src/a.ts', "import type { State } from '@escrowmq/broker';"),
      at('local-servers/src/a.ts', "import { LIMITS } from '@escrowmq/protocol';"),
      at('examples/one/src/a.ts', "import { startBroker } from '@escrowmq/broker';"),
      at(
        'examples/one/src/a.ts',
        "import { barrier } from '../../../producer-sdk/src/barrier.js';",
      ),
      at('examples/one/src/a.ts', "import { shards } from '../../two/src/shards.js';"),
      at('somewhere-new/src/a.ts', 'export const a = 1;'),
    ],
    harmless: [
      at('protocol/src/a.ts', "import { z } from 'zod';", "import { LIMITS } from './limits.js';"),
      at('broker/src/domain/a.ts', "import type { Decision } from '@escrowmq/protocol';"),
      at('broker/src/store/mysql/a.ts', "import { marks } from '../sql.js';"),
      at('broker/src/store/a.ts', "import type { State } from '../domain/transaction.js';"),
      at('broker/src/engine/a.ts', "import { commit } from '../domain/decide.js';"),
      at('broker/src/notify/a.ts', "import { createConsumer } from '@escrowmq/consumer';"),
      at('broker/src/a.ts', "import { createIntake } from './engine/intake.js';"),
      at('broker/src/a.ts', "// import { once } from '@escrowmq/consumer';"),
      at('examples/one/src/demo/a.ts', "import { shards } from '../shards.js';"),
      at('examples/one/src/a.ts', "import { freePorts } from '@escrowmq/local-servers';"),
    ],
  },
  {
    name: 'in the broker, SQL stands in store/ only',
    files: SOURCES,
    faults: sqlOutsideStore,
    planted: [
      at('broker/src/engine/a.ts', "const sql = 'select id from escrow_transaction';"),
      at('broker/src/engine/a.ts', 'const sql = `', '  INSERT INTO a values (?)`;'),
      at('broker/src/http/a.ts', `const sql = \`update \${table} set state = ?\`;`),
      at('broker/src/http/a.ts', "run('update escrow_transaction set state = ?');"),
      at('broker/src/main.ts', `run(\`delete from \${table}\`);`),
      at('broker/src/observe/a.ts', "run('create table a (id int)');"),
    ],
    harmless: [
      at('broker/src/store/a.ts', "const sql = 'select id from escrow_transaction';"),
      at('broker/src/engine/a.ts', "type Needs = Pick<Store, 'insert' | 'find'>;"),
      at('broker/src/engine/a.ts', "// 'select id from escrow_transaction' would be slow"),
      at('broker/src/engine/a.ts', "throw new Error('update of the row failed');"),
    ],
  },
  {
    name: 'the environment is read in config.ts and main.ts only, and in no SDK',
    files: SOURCES,
    faults: environmentReads,
    planted: [
      at('broker/src/engine/a.ts', 'const level = process.env.ESCROW_LOG_LEVEL;'),
      at('broker/src/broker.ts', "const all = process['env'];"),
      at('broker/src/http/a.ts', 'const all = globalThis.process.env;'),
      at('producer-sdk/src/a.ts', 'const { env } = process;'),
      at('consumer-sdk/src/a.ts', "import { env } from 'node:process';"),
      at('protocol/src/a.ts', 'export const level = process.env.LEVEL;'),
    ],
    harmless: [
      at('broker/src/main.ts', 'parseConfig(process.env);'),
      at('producer-sdk/src/a.ts', '/** @example secret: process.env.CHECK_SECRET */'),
      at('broker/src/engine/a.ts', 'const { env } = options;', 'process.exitCode = 1;'),
    ],
  },
  {
    name: 'only a package has an index.ts, for its public door',
    files: SOURCES,
    faults: barrels,
    planted: [
      at('broker/src/index.ts', ''),
      at('broker/src/store/mysql/index.ts', ''),
      at('producer-sdk/src/barriers/index.ts', ''),
    ],
    harmless: [at('protocol/src/index.ts', ''), at('broker/src/store/indexes.ts', '')],
  },
  {
    name: `no source file exceeds ${LINES_MAX} lines`,
    files: SOURCES,
    faults: tooLong,
    planted: [at('broker/src/engine/a.ts', ...Array<string>(LINES_MAX + 1).fill('a();'))],
    harmless: [at('broker/src/engine/a.ts', ...Array<string>(LINES_MAX).fill('a();'), '')],
  },
  {
    name: 'no file names a path or a registry of one machine',
    files: FILES,
    faults: tracesOfAMachine,
    planted: [
      at('docs/a.md', `see ${homeOf('root', 'notes')}`),
      at('scripts/a.mjs', `const dir = '${homeOf('work', 'main')}';`),
      at('test/a.ts', `import('file://${homeOf('home', 'anna', 'a.js')}')`),
      at('README.md', `cd ${homeOf('Users', 'anna')}`),
      at('README.md', ['C:', 'Users', 'anna'].join('\\')),
      at('package-lock.json', `"resolved": ${JSON.stringify('http://mirror.local/a.tgz')}`),
    ],
    harmless: [
      at('Dockerfile', 'WORKDIR /home/node/app'),
      at('docs/a.md', 'https://example.org/home/page and at work/main and /work'),
      at('package-lock.json', '"resolved": "https://registry.npmjs.org/a.tgz"'),
    ],
  },
];

for (const { name, files, faults, planted, harmless } of RULES) {
  describe(name, () => {
    test('holds in every file', () => {
      expect(files.length).toBeGreaterThan(50);
      expect(files.flatMap(faults)).toEqual([]);
    });

    test.each(planted)('finds what was planted in $path: $line', (file) => {
      expect(faults(file)).not.toEqual([]);
    });

    test.each(harmless)('passes $path: $line', (file) => {
      expect(faults(file)).toEqual([]);
    });
  });
}

test('a floor names only floors before it, and each holds files', () => {
  FLOORS.forEach(({ folder, below }, index) => {
    const before = FLOORS.slice(0, index).map((floor) => floor.folder);
    expect(difference(below, before)).toEqual([]);
    expect([folder, FILES.some(({ path }) => path.startsWith(folder))]).toEqual([folder, true]);
  });
});

test('docs/errors.md explains every code there is, and no other', () => {
  expect(errorPageFaults(page('errors.md'), Object.keys(ERRORS))).toEqual([]);
});

test('a code that is not explained, is gone or is explained twice is found', () => {
  const sample = '### OLD_CODE\n\n### `BROKER_BUSY`\n\n### BROKER_BUSY\n\n## NO_CODE';
  expect(errorPageFaults(sample, ['BROKER_BUSY', 'NEW_CODE'])).toEqual([
    'docs/errors.md does not explain NEW_CODE',
    'docs/errors.md explains OLD_CODE, which is gone',
    'docs/errors.md explains BROKER_BUSY twice',
  ]);
});

test('docs/operations.md names every variable of the configuration', () => {
  expect(VARIABLES).toContain('ESCROW_RABBITMQ');
  expect(variablePageFaults(page('operations.md'), VARIABLES)).toEqual([]);
});

test('a variable that is not named, or named outside inline code, is found', () => {
  const sample = '`ESCROW_LISTEN` and `ESCROW_STORE_FILE` and ESCROW_STORE';
  expect(variablePageFaults(sample, ['ESCROW_LISTEN', 'ESCROW_STORE'])).toEqual([
    'docs/operations.md does not name ESCROW_STORE',
  ]);
});
