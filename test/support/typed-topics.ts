import { defineTopic } from '@escrowmq/producer';
import { type } from 'arktype';
import * as v from 'valibot';
import { z } from 'zod';

/** One topic, its schemas written with each library, and what each says of `{ userId: 'seven' }`. */
export const LIBRARIES = [
  {
    library: 'zod',
    registered: z.object({ userId: z.number(), tags: z.array(z.string()).max(20) }),
    said: 'Invalid input: expected number, received string',
  },
  {
    library: 'valibot',
    registered: v.object({
      userId: v.number(),
      tags: v.pipe(v.array(v.string()), v.maxLength(20)),
    }),
    said: 'Invalid type: Expected number but received "seven"',
  },
  {
    library: 'arktype',
    registered: type({ userId: 'number', tags: 'string[] <= 20' }),
    said: 'userId must be a number (was a string)',
  },
] as const;

/** A schema that does what a test says. */
export const schemaThat = (validate: (value: unknown) => unknown) => ({
  '~standard': { version: 1 as const, vendor: 'test', validate: validate as never },
});

/** Answers in the next turn, as one does that asks elsewhere. */
export const later = z
  .object({ userId: z.number() })
  .refine(async ({ userId }) => (await Promise.resolve(userId)) < 100, {
    path: ['userId'],
    error: 'is not known',
  });

export const moved = defineTopic('user', {
  moved: {
    1: z.object({ to: z.string() }),
    2: z.object({ street: z.string(), city: z.string() }),
  },
});
