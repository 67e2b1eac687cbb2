import { attempt, textOfError } from './foreign.js';
import { kindOf } from './options.js';
import { shownPath } from './travelling-data.js';

/*
 * Standard Schema 1 (https://standardschema.dev), by which zod, valibot, arktype and others are asked
 * alike: its types, as far as we use them and written out here, so that nobody has to install them; and
 * how the answer of such a library is read. It is foreign code, so its answer may be anything.
 */

/** A schema of any library that follows Standard Schema: zod from 3.24, valibot from 1.0, arktype from 2.0. */
export interface StandardSchema<Input = unknown, Output = Input> {
  /** What the library says of the schema. */
  readonly '~standard': StandardSchemaProps<Input, Output>;
}

/** What stands under `~standard` of a schema. */
export interface StandardSchemaProps<Input = unknown, Output = Input> {
  /** Of the standard. */
  readonly version: 1;
  /** The name of the library. */
  readonly vendor: string;
  /** Takes data, and answers at once or later what became of them. */
  readonly validate: (
    value: unknown,
  ) => StandardSchemaResult<Output> | Promise<StandardSchemaResult<Output>>;
  /** For the compiler only: never there at run time. */
  readonly types?:
    | {
        /** What it takes. */
        readonly input: Input;
        /** What it gives. */
        readonly output: Output;
      }
    | undefined;
}

/** What a schema makes of data: a value, or issues. */
export type StandardSchemaResult<Output> =
  | {
      /** What the data became. */
      readonly value: Output;
      /** What is wrong with the data; absent where nothing is. */
      readonly issues?: undefined;
    }
  | {
      /** What is wrong with the data; absent where nothing is. */
      readonly issues: readonly StandardSchemaIssue[];
    };

/** One thing that is wrong with data, in the library's words. */
export interface StandardSchemaIssue {
  /** For people. */
  readonly message: string;
  /** Where, from the data on: keys, or objects with a `key`. Absent: the data themselves. */
  readonly path?:
    | readonly (
        | PropertyKey
        | {
            /** The key. */
            readonly key: PropertyKey;
          }
      )[]
    | undefined;
}

/** What a schema takes. */
export type SchemaInput<S extends StandardSchema> = NonNullable<S['~standard']['types']>['input'];
/** What a schema gives. */
export type SchemaOutput<S extends StandardSchema> = NonNullable<S['~standard']['types']>['output'];

/** An issue as read: a path of printable keys, and one line of text. */
export interface ShownIssue {
  /** Where, from the data on; empty for the data themselves. */
  path: (string | number)[];
  /** What is wrong. */
  message: string;
}

/** What a schema said of data, as read. */
export type SchemaAnswer =
  | {
      kind: 'fits';
      /** What the data became. */
      value: unknown;
    }
  /** `issues` are the first ten, `all` what the library gave. */
  | {
      kind: 'breaks';
      /** The first ten. */
      issues: ShownIssue[];
      /** How many there are. */
      count: number;
      /** What the library gave. */
      all: unknown;
    }
  /** Of a library that does not follow the standard; `said` goes on after "answered". */
  | {
      kind: 'nonsense';
      /** What it answered instead. */
      said: string;
    };

/** Whether it is a schema of a library that follows Standard Schema. */
export function isStandardSchema(given: unknown): given is StandardSchema {
  // Those of arktype are functions.
  const isObject = (typeof given === 'object' && given !== null) || typeof given === 'function';
  return isObject && attempt(() => typeof propsOf(given)?.validate === 'function', false);
}

const propsOf = (given: object): { validate?: unknown } | undefined =>
  (given as { '~standard'?: { validate?: unknown } })['~standard'];

/** Never throws, whatever it was given. */
export function readAnswer(answer: unknown): SchemaAnswer {
  return attempt(() => read(answer), { kind: 'nonsense', said: 'something that can not be read' });
}

function read(answer: unknown): SchemaAnswer {
  if (typeof answer !== 'object' || answer === null) {
    return { kind: 'nonsense', said: kindOf(answer) };
  }
  const { issues } = answer as { issues?: unknown };
  if (Array.isArray(issues)) {
    const shown = issues.slice(0, ISSUES_SHOWN_MAX).map(shownIssue);
    return { kind: 'breaks', issues: shown, count: issues.length, all: issues };
  }
  if (!issues && 'value' in answer) return { kind: 'fits', value: answer.value };
  return { kind: 'nonsense', said: 'an object with neither value nor issues' };
}

/** A list of a thousand wrong elements says nothing new after ten; as many as a refused request shows. */
const ISSUES_SHOWN_MAX = 10;
/** Ten of them stay far below the 60 KiB that all headers of a dead letter have. */
const ISSUE_CHARS_MAX = 300;

/** One issue that can't be read does not hide the others. */
const shownIssue = (issue: unknown): ShownIssue =>
  attempt(() => readIssue(issue as Partial<StandardSchemaIssue> | undefined), {
    path: [],
    message: 'an issue that can not be read',
  });

function readIssue(issue: Partial<StandardSchemaIssue> | undefined): ShownIssue {
  const { message, path } = issue ?? {};
  const keys = Array.isArray(path) ? path.map(keyOf) : [];
  const text = oneLine(typeof message === 'string' ? message : textOfError(issue));
  return { path: shownPath({ path: keys, message: text }), message: text };
}

function keyOf(step: unknown): string | number {
  const isObject = typeof step === 'object' && step !== null;
  const key: unknown = isObject ? (step as { key?: unknown }).key : step;
  return typeof key === 'number' ? key : String(key);
}

function oneLine(text: string): string {
  const line = text
    .toWellFormed()
    .replaceAll(/[\p{Cc}\s]+/gu, ' ')
    .trim();
  if (line === '') return 'without a word of why';
  return line.length <= ISSUE_CHARS_MAX
    ? line
    : `${line.slice(0, ISSUE_CHARS_MAX).toWellFormed()}…`;
}
