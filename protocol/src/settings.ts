import { z } from 'zod';

/*
 * Settings that a caller puts as a whole, under a name: those of a producer group, those of a
 * webhook. Their version keeps an instance that starts with older settings from undoing newer ones;
 * and both come with a secret that the broker's calls are signed with.
 */

/** What a PUT may say beside the settings. */
export const PUT_OPTIONS = {
  version: z
    .int()
    .min(0)
    .optional()
    .describe(
      'Of these settings, by the caller. Lower than the stored one: nothing changes. Without one they are replaced, and the stored version stays',
    ),
  rotateSecret: z
    .boolean()
    .default(false)
    .describe(
      'Make a new signing secret; calls carry both signatures for a day. Not with a version that is too low',
    ),
};

/** What is answered beside the settings. */
export const PUT_ANSWER = {
  version: z.int().describe('Of the stored settings; 0 as long as nobody has given one'),
  applied: z
    .boolean()
    .optional()
    .describe('To a PUT: false when its version was lower than the stored one'),
  signingSecret: z
    .string()
    .optional()
    .describe('whsec_…; only when it was created or the secret rotated'),
};
