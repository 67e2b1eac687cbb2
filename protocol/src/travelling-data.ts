import { LIMITS } from './limits.js';

/*
 * What can travel as the `data` of a message, in one place for everybody who takes some: the SDKs
 * in their caller's own call, before anything is written, and the broker for each request.
 *
 * JSON is written and read several times on the way, by JavaScript here and by anything at the end.
 * So data travel when every one of those sees what the caller meant, and not when JSON.stringify
 * would take something out or put something else in its place without a word:
 *
 * - texts and keys are well-formed Unicode: half of a surrogate pair has no UTF-8;
 * - numbers are finite: `NaN`, `Infinity`, and `1e400`, which is read as Infinity, are written as null;
 * - no `undefined` on top or in a list, no function and no symbol: they are left out, or become null;
 * - no Map, Set, promise, error, byte array, nor any other object without a field of its own: they are
 *   written as `{}`, or as a list of bytes under the names "0", "1" and so on;
 * - no key `__proto__`, nor `constructor` with a `prototype` in it: JSON carries them, but whoever
 *   merges what he got into an object of his own would change the prototype of them all. One who has
 *   to be protected does not know it, so it is refused where it would start;
 * - at most `dataDepthMax` levels, which also ends what holds itself.
 *
 * What travels as everybody expects of JSON: an object with `toJSON` (a Date, a Buffer, a decimal of a
 * library) as what that returns; a field that is `undefined`, by not being there; an instance of a
 * class as its own fields, without methods; keys that are symbols, and names given to a list, not
 * at all; -0 as 0.
 */

/** Why data can't travel. */
export interface Obstacle {
  /** Where, from the data on; empty: the data itself. */
  path: (string | number)[];
  /** Goes on after the name of what is there. */
  message: string;
}

/**
 * What keeps data from travelling; undefined when nothing does. Ends for whatever it is given, and
 * never throws.
 */
export function obstacleIn(data: unknown): Obstacle | undefined {
  try {
    return look(data, LIMITS.dataDepthMax, { left: LIMITS.batchBytesMax });
  } catch (error) {
    // A getter or a toJSON of the caller's.
    return at(
      `can not be read: ${error instanceof Error ? error.message : 'something was thrown'}`,
    );
  }
}

/** A path for people, of keys that may hold anything. */
export const shownPath = ({ path }: Obstacle): (string | number)[] => {
  const shown = path.slice(0, PATH_KEYS_SHOWN_MAX).map(shownKey);
  return path.length > PATH_KEYS_SHOWN_MAX ? [...shown, '…'] : shown;
};

/** Enough to find the place; a hostile path could be as long as a body. */
const PATH_KEYS_SHOWN_MAX = 12;
const KEY_CHARS_SHOWN_MAX = 60;

function shownKey(key: string | number): string | number {
  if (typeof key === 'number') return key;
  const printable = key.toWellFormed().replaceAll(/\p{Cc}/gu, '\uFFFD');
  return printable.length > KEY_CHARS_SHOWN_MAX
    ? `${printable.slice(0, KEY_CHARS_SHOWN_MAX).toWellFormed()}…`
    : printable;
}

/**
 * What JSON needs at least for a field (`"":0,`) and for an element (`0,`). Few objects that stand in one
 * another many times over need more than any request may have, and would never be written to the end.
 */
const FIELD_BYTES_MIN = 5;
const ELEMENT_BYTES_MIN = 2;

/** Bytes that what is left to look at may need. */
interface Budget {
  left: number;
}

const isFunction = (value: unknown): value is (...args: never) => unknown =>
  typeof value === 'function';

const at = (message: string): Obstacle => ({ path: [], message });

function under(key: string | number, obstacle: Obstacle): Obstacle {
  obstacle.path.unshift(key);
  return obstacle;
}

const LONE_SURROGATE = 'has half of a surrogate pair, which is no Unicode text and has no UTF-8';
const REACHES_PROTOTYPE = 'is a key that would reach a prototype of whoever reads it';
const NO_FIELDS =
  'has no field that JSON writes and would arrive as {}; give its contents as plain objects, lists and texts, or give it a toJSON()';

function look(value: unknown, levels: number, budget: Budget): Obstacle | undefined {
  switch (typeof value) {
    case 'string':
      return value.isWellFormed() ? undefined : at(LONE_SURROGATE);
    case 'number':
      if (Number.isFinite(value)) return undefined;
      return at(`is ${value}, which JSON does not have and writes as null`);
    case 'boolean':
      return undefined;
    case 'object':
      return value === null ? undefined : lookInto(value, levels, budget);
    case 'bigint':
      return lookAtBigInt(value, levels, budget);
    case 'undefined':
      return at('is undefined, which JSON does not have; null stands for nothing');
    default:
      return at(`is a ${typeof value}, which JSON leaves out`);
  }
}

/** Some programs teach all of them to write themselves. */
function lookAtBigInt(value: bigint, levels: number, budget: Budget): Obstacle | undefined {
  const { toJSON } = value as { toJSON?: unknown };
  if (isFunction(toJSON)) return lookWritten(value, toJSON, { levels, budget });
  return at('is a bigint, which JSON does not have; write it as a text');
}

function lookWritten(
  value: unknown,
  toJSON: (...args: never) => unknown,
  { levels, budget }: { levels: number; budget: Budget },
): Obstacle | undefined {
  const written: unknown = Reflect.apply(toJSON, value, ['']);
  // What it returns is not asked for a toJSON of its own.
  return typeof written === 'object' && written !== null
    ? lookAtMembers(written, levels, budget)
    : look(written, levels, budget);
}

function lookInto(value: object, levels: number, budget: Budget): Obstacle | undefined {
  const { toJSON } = value as { toJSON?: unknown };
  if (isFunction(toJSON)) return lookWritten(value, toJSON, { levels, budget });
  return lookAtMembers(value, levels, budget);
}

function lookAtMembers(value: object, levels: number, budget: Budget): Obstacle | undefined {
  if (levels === 0) {
    return at(`nests deeper than ${LIMITS.dataDepthMax} levels (dataDepthMax), or holds itself`);
  }
  if (Array.isArray(value)) return lookAtElements(value, levels, budget);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    const built = lookAtBuiltIn(value, levels, budget);
    if (built !== 'fields') return built;
  }
  const keys = Object.keys(value);
  budget.left -= keys.length * FIELD_BYTES_MIN;
  if (budget.left < 0) return at(TOO_MANY);
  for (const key of keys) {
    const child = (value as Record<string, unknown>)[key];
    if (child === undefined) continue;
    if (key === '__proto__' || (key === 'constructor' && hasPrototype(child))) {
      return under(key, at(REACHES_PROTOTYPE));
    }
    if (!key.isWellFormed()) return under(key, at(LONE_SURROGATE));
    const obstacle = look(child, levels - 1, budget);
    if (obstacle !== undefined) return under(key, obstacle);
  }
  return undefined;
}

const TOO_MANY = 'holds more values than any request has bytes';

function lookAtElements(
  value: readonly unknown[],
  levels: number,
  budget: Budget,
): Obstacle | undefined {
  budget.left -= value.length * ELEMENT_BYTES_MIN;
  if (budget.left < 0) return at(TOO_MANY);
  for (let index = 0; index < value.length; index += 1) {
    const obstacle = look(value[index], levels - 1, budget);
    if (obstacle !== undefined) return under(index, obstacle);
  }
  return undefined;
}

const hasPrototype = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, 'prototype');

/** Tags of what JSON writes without its contents, whether it has fields beside them or not. */
const EMPTIED =
  /^\[object (?:(?:Weak)?(?:Map|Set)|WeakRef|Promise|Error|RegExp|(?:Shared)?ArrayBuffer|DataView|\w+Array)\]$/;
/** JSON takes the value out of these. */
const BOXED = /^\[object (?:String|Number|Boolean|BigInt)\]$/;

/** What is neither a list nor an object literal; `fields` when it travels as its own fields. */
function lookAtBuiltIn(
  value: object,
  levels: number,
  budget: Budget,
): Obstacle | 'fields' | undefined {
  const tag = Object.prototype.toString.call(value);
  if (BOXED.test(tag)) return look(value.valueOf(), levels, budget);
  if (EMPTIED.test(tag)) return at(`is a ${tag.slice('[object '.length, -1)}, and ${NO_FIELDS}`);
  if (Object.keys(value).length > 0 || isPlain(value)) return 'fields';
  return at(`is ${nameOf(value)}, and ${NO_FIELDS}`);
}

/** An object literal of another realm, such as that of a test or a sandbox. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return typeof prototype === 'object' && Object.getPrototypeOf(prototype) === null;
}

function nameOf(value: object): string {
  const name = isFunction(value.constructor) ? value.constructor.name : '';
  return name === '' ? 'an object without fields' : `an instance of ${name}`;
}

/** Around the data, the fields of a request nest less deep than that. */
const REQUEST_DEPTH_MAX = 8;

/**
 * Where a request has `__proto__` among its own keys, outside of its data: a schema would pass over
 * that in some places without a word.
 */
export function prototypeKeyIn(
  request: unknown,
  levels: number = REQUEST_DEPTH_MAX,
): (string | number)[] | undefined {
  if (typeof request !== 'object' || request === null || levels === 0) return undefined;
  if (Object.hasOwn(request, '__proto__')) return ['__proto__'];
  for (const key of Object.keys(request)) {
    if (key === 'data') continue;
    const path = prototypeKeyIn((request as Record<string, unknown>)[key], levels - 1);
    if (path !== undefined) return [key, ...path];
  }
  return undefined;
}
