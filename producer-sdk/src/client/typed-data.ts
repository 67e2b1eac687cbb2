import { callForeign } from '@escrowmq/database';
import {
  brokenSchema,
  EscrowError,
  mismatch,
  nonsense,
  obstacleIn,
  readAnswer,
  type SchemaPlace,
  shownPath,
  shownPlace,
  textOfError,
} from '@escrowmq/protocol';

/*
 * Data on their way out, and the schema of their topic:
 *
 *   what the caller gave ─► schema ─► what it gives, as JSON: this travels ─► the same schema once more
 *
 * The second time is what the consumer will do. Without it a schema that does not take what it gives
 * (a date that travels as a text, a transform that counts a list) would let everything go here, and
 * would make a dead letter of each message there.
 */

/** Told once, at once or later. */
interface FitEnds {
  /** @param data as they travel */
  fits(data: unknown): void;
  refused(error: EscrowError): void;
}

/** What is to fit a schema. */
export interface ToFit {
  place: SchemaPlace;
  data: unknown;
  /** Begins a sentence: `the data of message 0`. */
  what: string;
}

/**
 * The data as they travel; at once where the schema answers at once.
 *
 * @throws {EscrowError} INVALID_REQUEST for data that break their schema or can't travel,
 *   INVALID_CONFIGURATION for a schema that throws or answers nonsense
 */
export function fitData(toFit: ToFit): { fit: unknown } | Promise<{ fit: unknown }> {
  const first: { end?: { fit: unknown } | { error: EscrowError } } = {};
  let ends: FitEnds = {
    fits: (fit) => Object.assign(first, { end: { fit } }),
    refused: (error) => Object.assign(first, { end: { error } }),
  };
  fit(toFit, { fits: (data) => ends.fits(data), refused: (error) => ends.refused(error) });
  const { end } = first;
  if (end === undefined) {
    return new Promise((resolve, reject) => {
      ends = { fits: (data) => resolve({ fit: data }), refused: reject };
    });
  }
  if ('error' in end) throw end.error;
  return end;
}

function fit({ place, data, what }: ToFit, ends: FitEnds): void {
  ask(place, data, {
    refused: ends.refused,
    broke: (answer) => ends.refused(mismatch(place, answer, { what })),
    gave(given) {
      const written = writtenData(place, given, what);
      if (written instanceof EscrowError) {
        ends.refused(written);
        return;
      }
      const how =
        'fit once and not again, as they arrive: what a schema gives travels as JSON, and the same schema has to take that at the consumer;';
      ask(place, JSON.parse(written), {
        refused: ends.refused,
        broke: (answer) => ends.refused(mismatch(place, answer, { what, how })),
        gave: () => ends.fits(JSON.parse(written)),
      });
    },
  });
}

interface Asked {
  gave(value: unknown): void;
  broke(answer: Parameters<typeof mismatch>[1]): void;
  refused(error: EscrowError): void;
}

function ask(place: SchemaPlace, data: unknown, { gave, broke, refused }: Asked): void {
  callForeign(() => place.schema['~standard'].validate(data), {
    threw: (error) => refused(brokenSchema(place, `threw ${textOfError(error)}`, error)),
    returned(given) {
      const answer = readAnswer(given);
      switch (answer.kind) {
        case 'fits':
          return gave(answer.value);
        case 'breaks':
          return broke(answer);
        case 'nonsense':
          return refused(nonsense(place, answer));
      }
    },
  });
}

/** As JSON, or why not. */
function writtenData(place: SchemaPlace, given: unknown, what: string): string | EscrowError {
  const obstacle = obstacleIn(given);
  if (obstacle !== undefined) {
    const path = shownPath(obstacle);
    const { message } = obstacle;
    return new EscrowError(
      'INVALID_REQUEST',
      `${what} can not travel as the schema of ${shownPlace(place)} gives them: ${path.length === 0 ? 'it' : path.join('.')} ${message}`,
      { fields: [{ path: ['data', ...path].join('.'), message }] },
    );
  }
  try {
    return JSON.stringify(given);
  } catch (cause) {
    return new EscrowError('INVALID_REQUEST', `${what} can not be written as JSON`, { cause });
  }
}
