import { EscrowError, type FieldError } from './error-codes.js';
import { attempt, textOfError } from './foreign.js';
import type { SchemaAnswer } from './standard-schema.js';
import { listed, type SchemaPlace, type TopicPlaces } from './typed-topic.js';

/*
 * How a message and a schema meet: which schema it has to fit, and what is said when it does not. Both
 * SDKs say it alike.
 */

/**
 * The header that says which version of its key's schema a message was made with: a whole number, also
 * as a text. A message without it is of version 1. A header like any caller's, so that brokers of any
 * version carry it, and producers and consumers without the SDK can set and read it.
 */
export const SCHEMA_VERSION_HEADER = 'schema-version';

/** As much of a message that arrived as says which schema it has to fit. */
interface Arrived {
  /** As the producer gave it. */
  routingKey: string;
  /** The producer's own headers. */
  headers: Readonly<Record<string, unknown>>;
}

/** The schema that a message has to fit which arrived, or a sentence on why there is none. */
export function arrivedPlace(
  places: TopicPlaces,
  { routingKey, headers }: Arrived,
): SchemaPlace | string {
  const { topic, byKey } = places;
  const versions = byKey.get(routingKey);
  if (versions === undefined) {
    return `topic ${topic}, key ${routingKey}: this subscription has no schema for that key; it has ${listed(byKey)}`;
  }
  const version = readVersion(headers[SCHEMA_VERSION_HEADER]);
  const place = versions.get(version ?? 0);
  if (place !== undefined) return place;
  const said = textOfError(headers[SCHEMA_VERSION_HEADER]).slice(0, VERSION_CHARS_SHOWN_MAX);
  return `topic ${topic}, key ${routingKey}: the message was made with version ${said} of its schema, and this consumer knows ${listed(versions)}; consumers have to know a version before producers use it`;
}

/** A header may hold a kilobyte. */
const VERSION_CHARS_SHOWN_MAX = 60;

function readVersion(header: unknown): number | undefined {
  if (header === undefined) return 1;
  if (typeof header === 'number') return header;
  return typeof header === 'string' && /^[1-9][0-9]{0,9}$/.test(header)
    ? Number(header)
    : undefined;
}

/** For people: `topic user, key registered, version 2`. */
export const shownPlace = ({ topic, key, version, isVersioned }: SchemaPlace): string =>
  `topic ${topic}, key ${key === '' ? "''" : key}${isVersioned ? `, version ${version}` : ''}`;

/** The words around a place. */
interface MismatchWords {
  /** Begins the sentence: `the data of message 0`. */
  what: string;
  /** Stands before the place. @default 'do not fit' */
  how?: string;
}

/** The error for data that break their schema. */
export function mismatch(
  place: SchemaPlace,
  answer: Extract<SchemaAnswer, { kind: 'breaks' }>,
  { what, how = 'do not fit' }: MismatchWords,
): EscrowError {
  const { issues, count } = answer;
  const fields = issues.map(
    ({ path, message }): FieldError => ({ path: ['data', ...path].join('.'), message }),
  );
  const said = issues.map(({ path, message }) =>
    path.length === 0 ? message : `${path.join('.')}: ${message}`,
  );
  if (said.length === 0) said.push('the schema does not say why');
  if (count > issues.length) said.push(`and ${count - issues.length} more`);
  return new EscrowError(
    'INVALID_REQUEST',
    `${what} ${how} ${shownPlace(place)}: ${said.join('; ')}`,
    { fields, cause: new SchemaIssues(place, answer), details: detailsOf(place) },
  );
}

/** All that a library said of data, as it said it: the cause of a mismatch. */
class SchemaIssues extends Error {
  override readonly name = 'SchemaIssues';
  /** As the library gave them. */
  readonly issues: unknown;

  constructor({ schema }: SchemaPlace, { all, count }: Extract<SchemaAnswer, { kind: 'breaks' }>) {
    super(
      `${attempt(() => schema['~standard'].vendor, 'the library')} found ${count} issue${count === 1 ? '' : 's'}`,
    );
    this.issues = all;
  }
}

/** A schema that threw, or whose answer is none. */
export function brokenSchema(place: SchemaPlace, said: string, cause?: unknown): EscrowError {
  return new EscrowError('INVALID_CONFIGURATION', `the schema of ${shownPlace(place)} ${said}`, {
    cause,
    details: detailsOf(place),
  });
}

/** For an answer that follows no standard. */
export const nonsense = (
  place: SchemaPlace,
  { said }: Extract<SchemaAnswer, { kind: 'nonsense' }>,
): EscrowError =>
  brokenSchema(place, `answered ${said}; a Standard Schema answers { value } or { issues }`);

const detailsOf = ({ topic, key, version }: SchemaPlace) => ({
  topic,
  routingKey: key,
  schemaVersion: version,
});
