import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as protocol from '@escrowmq/protocol';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { parseBatchOptions } from '../../consumer-sdk/src/batch/options.js';
import { parseEphemeralOptions } from '../../consumer-sdk/src/ephemeral/options.js';
import { parseConsumerOptions, parseSubscribeOptions } from '../../consumer-sdk/src/options.js';
import { parseProducerOptions } from '../../producer-sdk/src/options.js';
import { type Editor, openInEditor } from '../support/hover.js';
import { entriesOf, type Gap, type PublicTypes, publicTypesOf } from '../support/public-types.js';

/*
 * What an editor shows of the packages (N09). Read from what is built, so a docstring that was
 * written a moment ago counts after `npm run build`; `npm test` builds first.
 */

const PACKAGES = ['protocol', 'database', 'producer-sdk', 'consumer-sdk'];

const CURE: Record<Gap['missing'], string> = {
  sentence: 'say in a sentence what it is',
  unit: 'say its unit: milliseconds, bytes, number of what',
  default: 'say what holds without it, as @default',
  name: 'write an interface, and hold its schema to it by `named`',
};
const say = ({ place, name, missing }: Gap) => `${place} ${name}: ${CURE[missing]}`;

let types: PublicTypes;
beforeAll(() => {
  types = publicTypesOf(PACKAGES.flatMap(entriesOf));
});

test('every public name has a sentence, every number a unit, and every option a default', () => {
  expect(types.gaps().map(say)).toEqual([]);
});

test('a name without a sentence is noticed wherever a user can meet it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'escrow-types-'));
  const entry = join(folder, 'index.d.ts');
  try {
    writeFileSync(join(folder, 'inner.d.ts'), 'export interface Inner { deep: string }\n');
    writeFileSync(
      entry,
      `import type { Inner } from './inner.js';
       export type Word = 'one' | 'two';
       export declare const TABLE: { row: Word };
       /** Is taken from a schema. */
       export type Taken = z.infer<typeof Schema>;
       /** Does something. */
       export declare function act(options: { flag: boolean }): Inner;
       /** Is something. */
       export declare class Thing { #hidden; private own; start(): void; }
       /** Is given and comes back, so nothing needs to be said for what is not there. */
       export interface Both {
         /** A time. */
         at?: number;
         kind: 'tag';
       }
       /** Is given. */
       interface Options {
         /** Without a default. */
         left?: string;
         /** With one. @default none */
         said?: string;
         /** In milliseconds. @default 5 */
         delay?: number;
       }
       /** Takes both. */
       export declare const use: (options: Options, both: Both) => Both;
      `,
    );
    const gaps = publicTypesOf([entry]).gaps();
    expect(gaps.map(({ name, missing }) => `${name} ${missing}`).sort()).toEqual([
      'Both.at unit',
      'Inner sentence',
      'Inner.deep sentence',
      'Options.left default',
      'TABLE sentence',
      'TABLE.row sentence',
      'Taken name',
      'Thing.start sentence',
      'Word sentence',
      'act.flag sentence',
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('a default is said as it is', () => {
  /** As a docstring writes it: `'retry'`, `[1, 2]`. */
  const written = (value: unknown): string =>
    JSON.stringify(value).replaceAll('"', "'").replaceAll(',', ', ');

  interface Described {
    $ref?: string;
    $defs?: Record<string, Described>;
    properties?: Record<string, { default?: unknown }>;
  }
  const propertiesOf = ({ $ref, $defs, properties = {} }: Described) =>
    $ref === undefined ? properties : ($defs?.[$ref.replace('#/$defs/', '')]?.properties ?? {});
  const SCHEMAS = Object.entries(protocol).flatMap(([name, value]): [string, Described][] =>
    value instanceof z.ZodType
      ? [[name, z.toJSONSchema(value, { io: 'input', unrepresentable: 'any' }) as Described]]
      : [],
  );

  test('of every field of a request', () => {
    const wrong: string[] = [];
    let compared = 0;
    for (const [name, described] of SCHEMAS) {
      const said = types.defaultsOf(name);
      for (const [field, description] of Object.entries(propertiesOf(described))) {
        if (description.default === undefined) continue;
        compared += 1;
        const right = written(description.default);
        const text = said.get(field);
        if (text === right || text?.startsWith(`${right}:`) === true) continue;
        wrong.push(`${name}.${field} says @default ${text}, and it is ${right}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(compared).toBeGreaterThan(20);
  });

  const rabbitmq = 'amqp://localhost';
  const topic = 'user';
  const OPTIONS: [name: string, settings: object][] = [
    [
      'ProducerOptions',
      parseProducerOptions({ brokers: ['http://localhost'], producerGroup: 'accounts' }),
    ],
    ['ConsumerOptions', parseConsumerOptions({ rabbitmq })],
    ['SubscribeOptions', parseSubscribeOptions({ topic, group: 'index' })],
    ['BatchOptions', parseBatchOptions({ topic, group: 'index' })],
    ['EphemeralOptions', parseEphemeralOptions({ topic, onGap: () => undefined })],
  ];
  test.each(OPTIONS)('of every number among %s', (name, settings) => {
    const numbers = [...types.defaultsOf(name)].flatMap(([option, text]) => {
      const digits = /^(\d+(?:\.\d+)?)(?:$|:| \()/.exec(text)?.[1];
      const value: unknown = Reflect.get(settings, option);
      return digits === undefined || value === undefined ? [] : [[option, Number(digits), value]];
    });
    expect(numbers.filter(([, said, value]) => said !== value)).toEqual([]);
    expect(numbers.length).toBeGreaterThan(0);
  });
});

describe('over a word of a program, an editor shows', () => {
  let editor: Editor;
  beforeAll(() => {
    editor = openInEditor(PROGRAM);
  });

  const PROGRAM = `
    import { createProducer, createCheckHandler } from '@escrowmq/producer';
    import { createConsumer, once } from '@escrowmq/consumer';
    import { PrepareRequest } from '@escrowmq/protocol';

    const brokers = ['http://127.0.0.1:7171'];
    const producer = createProducer({ brokers, producerGroup: 'accounts', attemptTimeoutMs: 500 });
    await producer.prepare({
      messages: [{ topic: 'user', orderingKey: 'user-7', data: { userId: 7 }, delayMs: 60_000 }],
    });
    await producer.registerGroup({ checkUrls: [], checkPolicy: { firstDelayMs: 5_000 } });
    const view = await producer.query('0198f3c2-7a10-7cc3-98c4-dc0c0c07398f');
    if (view.settled) await producer.close();

    const consumer = createConsumer({ rabbitmq: 'amqp://localhost' });
    const subscription = await consumer.subscribe(
      { topic: 'user', group: 'phone-index', concurrency: 4 },
      (message) => message.redelivered,
    );
    await subscription.close();
    export { createCheckHandler, once, PrepareRequest };
  `;

  test.each([
    ['createProducer', '= ', 'make one per process and producer group'],
    ['brokers', '{ ', 'Addresses of broker instances'],
    ['attemptTimeoutMs', '', '@default 1000'],
    ['prepare', 'producer.', 'Stores half messages at the broker'],
    ['prepare', 'producer.', '@example'],
    ['registerGroup', '', '@example'],
    ['query', 'producer.', '@example'],
    ['messages', '', 'What is sent once it is committed, 1 to 32'],
    ['topic', '[{ ', 'The durable topic exchange in RabbitMQ'],
    ['orderingKey', '', 'in the order of their commits'],
    ['data', '', 'Any JSON value'],
    ['delayMs', '', 'milliseconds after the commit'],
    ['checkUrls', '', 'Where the group answers checks'],
    ['firstDelayMs', '', '@default 10000'],
    ['settled', 'view.', 'consumed by all that were expected'],
    ['createConsumer', '= ', '@example'],
    ['rabbitmq', '', 'amqps://'],
    ['subscribe', 'consumer.', 'Consumes a topic for a consumer group'],
    ['subscribe', 'consumer.', '@example'],
    ['topic', '(\n      { ', 'The topic to consume'],
    ['group', ', ', 'instances with one group share the work'],
    ['concurrency', '', '@default 16'],
    ['redelivered', 'message.', 'got no acknowledgement'],
    ['createCheckHandler', 'export { ', '@example'],
    ['once', 'createCheckHandler, ', '@example'],
    ['PrepareRequest', 'once, ', 'stores half messages'],
  ])('a sentence for %s', (word, before, sentence) => {
    expect(editor.over(word, before).text).toContain(sentence);
  });

  test.each([
    ['producer', 'const ', 'const producer: Producer'],
    ['delayMs', '', '(property) MessageFields.delayMs?: number | undefined'],
    ['checkPolicy', '', '(property) checkPolicy?: CheckPolicyInput | undefined'],
    ['view', 'const ', 'const view: TransactionView'],
    ['message', '(', '(parameter) message: Message<unknown>'],
    ['topic', '[{ ', '(property) MessageFields.topic: string'],
    ['group', ', ', '(property) SubscribeOptions.group: string'],
  ])('a readable type for %s', (word, before, code) => {
    expect(editor.over(word, before).code).toBe(code);
  });
});
