import { EscrowError } from './error-codes.js';
import { attempt, textOfError } from './foreign.js';
import type { MessageInput } from './messages.js';
import { RoutingKey, Topic } from './names.js';
import { kindOf, refuseUnknown } from './options.js';
import { parse } from './problem.js';
import {
  isStandardSchema,
  type SchemaInput,
  type SchemaOutput,
  type StandardSchema,
} from './standard-schema.js';

/*
 * A topic whose data have schemas, for both SDKs. The producer makes messages of it, and its calls
 * check them before anything is written; the consumer subscribes to it, and a handler gets what the
 * schema gives. One definition serves both, so it belongs into a file that both import.
 *
 * A message of it is an ordinary message: what it was made with hangs on it under a symbol, which
 * travels through copies ({ ...message }) and never to the broker. The symbols are registered, because
 * a program may have two copies of this package, one for `import` and one for `require`; so what they
 * lead to is read by other versions of it, and only ever gets more fields.
 */

/** Schemas of one key side by side, each under its version: a whole number from 1 on. */
export type SchemaVersions = Readonly<Record<number, StandardSchema>>;
/** The schemas of a topic under their routing keys: one, or several versions side by side. */
export type TopicSchemas = Readonly<Record<string, StandardSchema | SchemaVersions>>;

/** What is neither a schema nor has versions for its only fields is asked to be a schema. */
type Proper<Schemas extends TopicSchemas> = {
  readonly [Key in keyof Schemas]: Schemas[Key] extends StandardSchema
    ? unknown
    : keyof Schemas[Key] extends number
      ? unknown
      : StandardSchema;
};

/** The routing keys of schemas. */
export type KeyIn<Schemas extends TopicSchemas> = keyof Schemas & string;
/** The versions of a key: 1 of a schema that stands alone. */
export type VersionIn<
  Schemas extends TopicSchemas,
  Key extends KeyIn<Schemas>,
> = Schemas[Key] extends StandardSchema ? 1 : keyof Schemas[Key] & number;

/** The schema of a key and version. */
type SchemaAt<
  Schemas extends TopicSchemas,
  Key extends KeyIn<Schemas>,
  Version,
> = Schemas[Key] extends StandardSchema
  ? Schemas[Key]
  : Version extends keyof Schemas[Key]
    ? Extract<Schemas[Key][Version], StandardSchema>
    : never;

/** What the schema of a key and version takes: the data that a producer gives. */
export type DataIn<Schemas extends TopicSchemas, Key extends KeyIn<Schemas>, Version> = SchemaInput<
  SchemaAt<Schemas, Key, Version>
>;
/** What the schema of a key and version gives: the data that a handler gets. */
export type DataOut<
  Schemas extends TopicSchemas,
  Key extends KeyIn<Schemas>,
  Version,
> = SchemaOutput<SchemaAt<Schemas, Key, Version>>;

/** What stands beside the data of a message; see there. */
export interface TypedMessageOptions
  extends Pick<
    MessageInput,
    | 'headers'
    | 'ifUnrouted'
    | 'deliverAt'
    | 'delayMs'
    | 'orderingKey'
    | 'compensate'
    | 'cloudEvents'
    | 'expects'
  > {}

/** Optional, but for the version of a key that has several. */
type OptionsAt<
  Schemas extends TopicSchemas,
  Key extends KeyIn<Schemas>,
  Version,
  Options,
> = Schemas[Key] extends StandardSchema
  ? [options?: Options]
  : [
      options: Options & {
        /** The version of the key's schema that the data fit. */
        version: Version;
      },
    ];

/** A message of a typed topic: like any other, and checked by whatever call of the producer takes it. */
export type TypedMessage<
  Name extends string = string,
  Key extends string = string,
> = MessageInput & {
  /** The name of the typed topic. */
  topic: Name;
  /** The key whose schema the data fit. */
  routingKey: Key;
};

/** Data with the schema that they must fit, for `supplyData` and for `messageData` of a commit. */
export interface TypedData {
  /** The name of the topic whose message they are for. */
  readonly topic: string;
  /** The key of that message. */
  readonly routingKey: string;
}

/** What there is to say of a typed topic without knowing which. */
export interface AnyTopic {
  /** The topic's name. */
  readonly name: string;
  /** As they were given to `defineTopic`. */
  readonly schemas: TopicSchemas;
}

/** A topic whose data have schemas: see `defineTopic`. */
export interface TypedTopic<Name extends string, Schemas extends TopicSchemas> extends AnyTopic {
  readonly name: Name;
  readonly schemas: Schemas;
  /**
   * A message for `send`, `prepare`, `transaction` or `enlist`, whose call checks it.
   *
   * @param data what the schema takes; what it gives is what travels
   * @param options what else a message may have, and `version` where the key has several
   * @throws {EscrowError} INVALID_REQUEST for a key or version that the topic has not
   */
  message<Key extends KeyIn<Schemas>, Version extends VersionIn<Schemas, Key>>(
    key: Key,
    data: DataIn<Schemas, Key, Version>,
    ...options: OptionsAt<Schemas, Key, Version, TypedMessageOptions>
  ): TypedMessage<Name, Key>;
  /**
   * A message whose data come later, with `supplyData` or with the commit, and are checked there.
   *
   * @throws {EscrowError} like `message`
   */
  open<Key extends KeyIn<Schemas>, Version extends VersionIn<Schemas, Key>>(
    key: Key,
    ...options: OptionsAt<Schemas, Key, Version, TypedMessageOptions>
  ): TypedMessage<Name, Key>;
  /**
   * The data of a message that was left open: for `supplyData`, and for `messageData` of a commit.
   *
   * @throws {EscrowError} like `message`
   */
  data<Key extends KeyIn<Schemas>, Version extends VersionIn<Schemas, Key>>(
    key: Key,
    data: DataIn<Schemas, Key, Version>,
    ...options: OptionsAt<Schemas, Key, Version, object>
  ): TypedData;
}

/** Where a schema stands. */
export interface SchemaPlace {
  /** The name of the topic. */
  topic: string;
  /** The routing key. */
  key: string;
  /** Number of the version of the key's schema, from 1. */
  version: number;
  /** Whether the key has versions, and its messages say theirs. */
  isVersioned: boolean;
  /** The schema itself. */
  schema: StandardSchema;
}

/** The schemas of a topic as they are looked up. */
export interface TopicPlaces {
  /** The name of the topic. */
  topic: string;
  /** The versions of each routing key. */
  byKey: ReadonlyMap<string, ReadonlyMap<number, SchemaPlace>>;
}

const PLACES = Symbol.for('escrowmq.topic');
const PLACE = Symbol.for('escrowmq.schema');
const DATA = Symbol.for('escrowmq.data');

const MESSAGE_OPTIONS = Object.keys({
  headers: true,
  ifUnrouted: true,
  deliverAt: true,
  delayMs: true,
  orderingKey: true,
  compensate: true,
  cloudEvents: true,
  expects: true,
} satisfies Record<keyof TypedMessageOptions, true>);

/**
 * Gives each routing key of a topic a schema, of any library that follows Standard Schema (zod,
 * valibot, arktype and others). Messages of it are checked where they are made and where they are
 * handled; everything else of topics, queues and groups stays as it is.
 *
 * A key with versions says with each message which one it was made with, in the header
 * `schema-version`, and may have several side by side. A schema that stands alone is version 1, and
 * its messages say nothing.
 *
 * @param name of the topic
 * @param schemas under whole routing keys, without patterns: a schema, or `{ 1: schema, 2: schema }`
 * @throws {EscrowError} INVALID_NAME, or INVALID_CONFIGURATION for what is no schema
 * @example
 * const user = defineTopic('user', {
 *   registered: z.object({ userId: z.number() }),
 *   moved: { 1: z.object({ to: z.string() }), 2: z.object({ street: z.string(), city: z.string() }) },
 * });
 * await producer.send({ messages: [user.message('registered', { userId: 7 })] });
 * await consumer.subscribe({ topic: user, group: 'index' }, (message) => {
 *   if (message.routingKey === 'registered') console.log(message.data.userId);
 * });
 */
export function defineTopic<Name extends string, const Schemas extends TopicSchemas>(
  name: Name,
  schemas: Schemas & Proper<Schemas>,
): TypedTopic<Name, Schemas> {
  parse(Topic, name, 'the name of a topic');
  const places = readSchemas(name, schemas);
  const place = (key: unknown, { version }: { version?: unknown }) => placeAt(places, key, version);
  const message = (key: unknown, body: object, given: object = {}) => {
    refuseUnknown(given, [...MESSAGE_OPTIONS, 'version'], `a message of topic ${name}`);
    const { version, ...options } = given as { version?: unknown };
    const made = { topic: name, routingKey: key, ...body, ...options };
    return Object.assign(made, { [PLACE]: place(key, { version }) });
  };
  const topic = {
    name,
    schemas,
    [PLACES]: places,
    message: (key: unknown, data: unknown, given?: object) => message(key, { data }, given),
    open: (key: unknown, given?: object) => message(key, { dataAtCommit: true }, given),
    data(key: unknown, data: unknown, given: object = {}) {
      refuseUnknown(given, ['version'], `data of topic ${name}`);
      return new DataOfPlace(place(key, given), data);
    },
  };
  return topic as unknown as TypedTopic<Name, Schemas>;
}

/** Data on their way to the open message that they are for. */
class DataOfPlace implements TypedData {
  readonly topic: string;
  readonly routingKey: string;
  readonly [PLACE]: SchemaPlace;
  readonly [DATA]: unknown;

  constructor(place: SchemaPlace, data: unknown) {
    this.topic = place.topic;
    this.routingKey = place.key;
    this[PLACE] = place;
    this[DATA] = data;
  }

  /** Nothing else than the two that know how to open it may send it. */
  toJSON(): never {
    throw new Error(
      'made by data() of a typed topic, which goes into supplyData or into messageData of a commit; a message is made by message()',
    );
  }
}

/** The schema that a message was made with; undefined for one of a plain topic, or for no message. */
export const placeOf = (made: unknown): SchemaPlace | undefined => ofSymbol(made, PLACE);

/** The schemas of a typed topic; undefined for what is none. */
export const placesOf = (topic: unknown): TopicPlaces | undefined => ofSymbol(topic, PLACES);

/** What `data()` of a typed topic made. */
interface PlacedData {
  /** The schema that the data must fit. */
  place: SchemaPlace;
  /** The data, not checked yet. */
  data: unknown;
}

/** What `data()` of a typed topic made; undefined for anything else. */
export function typedData(given: unknown): PlacedData | undefined {
  const place = placeOf(given);
  if (place === undefined || !attempt(() => DATA in (given as object), false)) return undefined;
  return { place, data: (given as { [DATA]?: unknown })[DATA] };
}

function ofSymbol<T>(given: unknown, symbol: symbol): T | undefined {
  if (typeof given !== 'object' || given === null) return undefined;
  return attempt(() => (given as Record<symbol, T>)[symbol], undefined);
}

/** The schema that a message has to fit which says that it is of this version. */
function placeAt(places: TopicPlaces, key: unknown, version: unknown): SchemaPlace {
  const { topic, byKey } = places;
  const versions = typeof key === 'string' ? byKey.get(key) : undefined;
  if (versions === undefined) {
    throw refused(`topic ${topic} has no key ${textOfError(key)}; it has ${listed(byKey)}`);
  }
  const [only] = versions.values();
  if (version === undefined && only !== undefined && !only.isVersioned) return only;
  const place = typeof version === 'number' ? versions.get(version) : undefined;
  if (place !== undefined) return place;
  const said =
    version === undefined ? 'none was given' : `${textOfError(version)} is not one of them`;
  throw refused(
    `key ${String(key)} of topic ${topic} has the versions ${listed(versions)}; ${said}`,
  );
}

const refused = (message: string) => new EscrowError('INVALID_REQUEST', message);

/** Names for a sentence, the empty one in quotes. */
export const listed = (names: ReadonlyMap<string | number, unknown>): string =>
  [...names.keys()].map((name) => (name === '' ? "''" : String(name))).join(', ');

function readSchemas(topic: string, schemas: unknown): TopicPlaces {
  if (typeof schemas !== 'object' || schemas === null || isStandardSchema(schemas)) {
    const given = isStandardSchema(schemas) ? 'one schema' : kindOf(schemas);
    throw unusable(
      topic,
      `takes an object with a schema for each routing key, and was given ${given}`,
    );
  }
  const keys = Object.entries(schemas);
  if (keys.length === 0) throw unusable(topic, 'needs at least one routing key with a schema');
  const byKey = new Map(keys.map(([key, given]) => [key, readVersions({ topic, key }, given)]));
  return { topic, byKey };
}

/** Versions are written in headers, as AMQP's 32-bit numbers by some clients. */
const VERSION_MAX = 2 ** 31 - 1;

function readVersions(
  at: { topic: string; key: string },
  given: unknown,
): Map<number, SchemaPlace> {
  const { topic, key } = at;
  parse(RoutingKey, key, `a routing key of topic ${topic}`);
  if (key.split('.').some((word) => word === '*' || word === '#')) {
    throw unusable(
      topic,
      `has the key ${key}: schemas stand under whole routing keys, not patterns`,
    );
  }
  if (isStandardSchema(given)) {
    return new Map([[1, { ...at, version: 1, isVersioned: false, schema: given }]]);
  }
  const versions = typeof given === 'object' && given !== null ? Object.entries(given) : [];
  if (versions.length === 0) throw noSchema(at, given);
  return new Map(
    versions.map(([name, schema]) => {
      const version = Number(name);
      if (!Number.isInteger(version) || version < 1 || version > VERSION_MAX) {
        throw versions.some(([, one]) => isStandardSchema(one))
          ? unusable(
              topic,
              `has version ${name} of key ${key}: versions are whole numbers from 1 on`,
            )
          : noSchema(at, given);
      }
      if (!isStandardSchema(schema)) throw noSchema(at, schema);
      return [version, { ...at, version, isVersioned: true, schema }];
    }),
  );
}

function noSchema({ topic, key }: { topic: string; key: string }, given: unknown): EscrowError {
  return unusable(
    topic,
    `has ${kindOf(given)} for key ${key}, which is no Standard Schema: zod has them from 3.24, valibot from 1.0, arktype from 2.0`,
  );
}

const unusable = (topic: string, problem: string) =>
  new EscrowError('INVALID_CONFIGURATION', `defineTopic('${topic}', …) ${problem}`);
