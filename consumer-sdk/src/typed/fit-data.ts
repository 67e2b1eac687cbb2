import { isThenable } from '@escrowmq/database';
import {
  arrivedPlace,
  brokenSchema,
  mismatch,
  nonsense,
  readAnswer,
  type SchemaPlace,
  type TopicPlaces,
  textOfError,
} from '@escrowmq/protocol';
import { Mismatch } from '../settle/mismatch.js';

/*
 * What arrived, and the schema of its topic. Called where a handler is called, so under its time limit
 * and with its abandonment, and like a handler it may throw anything.
 *
 * Data that break their schema will break it again: a dead letter at once. A schema that throws is
 * another matter, as a handler that throws is: it may have asked a service that is away.
 */

/** A message, as far as its schema is concerned. */
export interface Arrived {
  routingKey: string;
  contentType: string;
  headers: Readonly<Record<string, unknown>>;
  data: unknown;
}

/** What the schema gave, and which version of it. */
export interface Fit {
  data: unknown;
  version: number;
}

/**
 * @returns at once what a schema gives that answers at once
 * @throws {Mismatch} for data that fit no schema; an EscrowError for a schema that throws or answers
 *   nonsense
 */
export function fitData(places: TopicPlaces, arrived: Arrived): Fit | Promise<Fit> {
  const place = arrivedPlace(places, arrived);
  if (typeof place === 'string') throw new Mismatch(place);
  const { data, contentType } = arrived;
  // Bytes have no data that a schema could see.
  if (data === undefined) {
    const said = `the body of the message is ${contentType}`;
    throw new Mismatch(
      `topic ${place.topic}, key ${place.key}: ${said}, and only application/json has data that a schema can see`,
    );
  }
  let answer: unknown;
  try {
    answer = place.schema['~standard'].validate(data);
    if (isThenable(answer)) return later(place, answer as PromiseLike<unknown>);
  } catch (error) {
    throw threw(place, error);
  }
  return fitOf(place, answer);
}

async function later(place: SchemaPlace, pending: PromiseLike<unknown>): Promise<Fit> {
  let answer: unknown;
  try {
    answer = await pending;
  } catch (error) {
    throw threw(place, error);
  }
  return fitOf(place, answer);
}

function fitOf(place: SchemaPlace, given: unknown): Fit {
  const answer = readAnswer(given);
  switch (answer.kind) {
    case 'fits':
      return { data: answer.value, version: place.version };
    case 'breaks': {
      const cause = mismatch(place, answer, { what: 'the data of the message' });
      throw new Mismatch(cause.message, { cause });
    }
    case 'nonsense':
      throw nonsense(place, answer);
  }
}

const threw = (place: SchemaPlace, error: unknown) =>
  brokenSchema(place, `threw ${textOfError(error)}`, error);
