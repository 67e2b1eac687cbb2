import { z } from 'zod';

/*
 * Settings that a caller puts as a whole, under a name: those of a producer group, those of a
 * webhook. Their version keeps an instance that starts with older settings from undoing newer ones;
 * and both come with a secret that the broker's calls are signed with.
 */

/** Standard Webhooks asks for 24 to 64 bytes. */
const SECRET_BYTES = { min: 24, max: 64 };

/** A service's own secret; what is wrong with it is said without it. */
const SigningSecret = z
  .string()
  .refine(isSigningSecret, {
    error: `must be whsec_ and the base64 of ${SECRET_BYTES.min} to ${SECRET_BYTES.max} random bytes, such as whsec_$(openssl rand -base64 32)`,
  })
  .meta({ pattern: '^whsec_[A-Za-z0-9+/]+={0,2}$' });

function isSigningSecret(value: string): boolean {
  const base64 = /^whsec_((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)$/.exec(
    value,
  );
  if (base64?.[1] === undefined) return false;
  const padding = /=*$/.exec(base64[1])?.[0].length ?? 0;
  const bytes = (base64[1].length / 4) * 3 - padding;
  return bytes >= SECRET_BYTES.min && bytes <= SECRET_BYTES.max;
}

/** What a PUT may say beside the settings, as parsed. */
export interface PutOptions {
  /**
   * Number of these settings, by the caller. Lower than the stored one: nothing changes. Without one they
   * are replaced, and the stored version stays. @default none
   */
  version?: number | undefined;
  /**
   * The service's own secrets, `whsec_` and the base64 of 24 to 64 random bytes, the one in force first:
   * `[new, old]` signs with both, `[new]` with the old one for a day more. Repeated they change nothing,
   * and they are never answered. @default the stored one stays, and a new one is made where there is none
   */
  signingSecrets?: string[] | undefined;
  /**
   * Taken instead of a made one where this call creates or rotates, so that it may be repeated; else it
   * changes nothing. It is answered where it is in force. @default one is made
   */
  newSecret?: string | undefined;
  /** Makes a new signing secret; calls carry both signatures for a day. */
  rotateSecret: boolean;
}

/** What a PUT may say beside the settings, as a caller writes it. */
export interface PutInput extends Omit<PutOptions, 'rotateSecret'> {
  /**
   * Makes a new signing secret; calls carry both signatures for a day. Not with a version that is too
   * low. @default false
   */
  rotateSecret?: boolean | undefined;
}

/** What is answered beside the settings. */
export interface PutAnswer {
  /** Number of the stored settings; 0 as long as nobody has given one. */
  version: number;
  /** To a PUT: false when its version was lower than the stored one. */
  applied?: boolean | undefined;
  /** `whsec_…`; only when it was created or the secret rotated. */
  signingSecret?: string | undefined;
}

/** What a PUT may say beside the settings. */
export const PUT_OPTIONS = {
  version: z
    .int()
    .min(0)
    .optional()
    .describe(
      'Of these settings, by the caller. Lower than the stored one: nothing changes. Without one they are replaced, and the stored version stays',
    ),
  signingSecrets: z
    .array(SigningSecret)
    .min(1)
    .max(2)
    .optional()
    .describe(
      "The service's own secrets, the one in force first: [new, old] signs with both, [new] with the old one for a day more. Repeated they change nothing, and they are never answered",
    ),
  newSecret: SigningSecret.optional().describe(
    'Taken instead of a made one where this call creates or rotates, so that it may be repeated; else it changes nothing. It is answered where it is in force',
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

/** For `superRefine`: of the ways to set a secret a call has one. */
export function oneWayToSetSecrets(
  request: { signingSecrets?: unknown; newSecret?: unknown; rotateSecret: boolean },
  context: z.RefinementCtx,
): void {
  if (request.signingSecrets === undefined) return;
  if (!request.rotateSecret && request.newSecret === undefined) return;
  context.addIssue({
    code: 'custom',
    path: ['signingSecrets'],
    message:
      'goes without rotateSecret and newSecret: to rotate, state [new, old], and [new] later',
  });
}
