import { within } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { Webhook } from 'standardwebhooks';
import type { CallbackKind } from './callback-handler.js';

/** One `whsec_…` secret, or several while one is being rotated. */
export type SigningSecret = string | string[];

/** The secrets, or a function that fetches them, so that they may change without a restart. */
export type SigningSecretSource = SigningSecret | (() => SigningSecret | Promise<SigningSecret>);

/** Names in lower case, as Node gives them. */
export type CallbackHeaders = Record<string, string | string[] | undefined>;

/**
 * How long fetched secrets are used. Longer than a moment, so that a flood of forged calls does
 * not become a flood of questions to a secret store; and far below the day for which the broker
 * signs with the old secret and the new one, so that nobody notices a rotation.
 */
export const SECRETS_KEPT_MS = 30_000;

/** The secrets as they are now, and what they sign. */
export interface Secrets {
  kind: CallbackKind;
  now(): Promise<Webhook[]>;
}

/**
 * @param now monotonic milliseconds
 * @throws {EscrowError} INVALID_CONFIGURATION: given secrets that are none
 */
export function createSecrets(
  source: SigningSecretSource,
  kind: CallbackKind,
  now = () => performance.now(),
): Secrets {
  if (typeof source !== 'function') {
    const given = parseSecrets(source);
    return { kind, now: async () => given };
  }
  let kept: { secrets: Promise<Webhook[]>; until: number } | undefined;
  const current = (): Promise<Webhook[]> => {
    if (kept !== undefined && now() < kept.until) return kept.secrets;
    const fetched = fetchSecrets(source);
    const mine = { secrets: fetched, until: now() + SECRETS_KEPT_MS };
    kept = mine;
    // A failure is for those who wait now; the next call asks anew.
    fetched.catch(() => {
      if (kept === mine) kept = undefined;
    });
    return fetched;
  };
  return { kind, now: current };
}

async function fetchSecrets(source: () => SigningSecret | Promise<SigningSecret>) {
  return parseSecrets(await source());
}

/**
 * Decoders of base64 drop what they don't know at the end, and would verify with another secret than was
 * meant. A line break there, as files have it, changes nothing.
 */
const SECRET = /^(whsec_)?[A-Za-z0-9+/]+={0,2}(\r?\n)?$/;

function parseSecrets(signingSecret: SigningSecret): Webhook[] {
  const secrets = [signingSecret].flat();
  if (secrets.length === 0) {
    throw new EscrowError('INVALID_CONFIGURATION', 'signingSecret needs at least one secret');
  }
  return secrets.map((secret, index) => {
    try {
      if (!SECRET.test(secret)) throw new Error('it has characters that base64 does not have');
      return new Webhook(secret);
    } catch (cause) {
      throw new EscrowError(
        'INVALID_CONFIGURATION',
        `signingSecret ${index + 1} is not whsec_ and base64`,
        { cause },
      );
    }
  });
}

/**
 * Any of the secrets will do for any of the signatures; the signed time may be five minutes off
 * (standardwebhooks).
 *
 * @throws {EscrowError} INVALID_SIGNATURE; the kind's `notAnswered` when the secrets can't be had
 */
export async function verifySignature(
  secrets: Secrets,
  signed: { headers: CallbackHeaders; text: string },
  limitMs: number,
): Promise<void> {
  const webhooks = await secretsWithin(secrets, limitMs);
  const headers: Record<string, string> = {};
  for (const name of ['webhook-id', 'webhook-timestamp', 'webhook-signature']) {
    const value = signed.headers[name];
    if (typeof value === 'string') headers[name] = value;
  }
  let cause: unknown;
  for (const webhook of webhooks) {
    try {
      webhook.verify(signed.text, headers, { jsonParse: false });
      return;
    } catch (error) {
      cause = error;
    }
  }
  const said = cause instanceof Error ? cause.message : 'no secret';
  throw new EscrowError(
    'INVALID_SIGNATURE',
    `the ${secrets.kind.name} is not signed as it must be: ${said}`,
    {
      cause,
    },
  );
}

async function secretsWithin(secrets: Secrets, limitMs: number): Promise<Webhook[]> {
  try {
    return await within(secrets.now(), limitMs, {
      error: () => new Error(`signingSecret() gave nothing within ${Math.round(limitMs)} ms`),
    });
  } catch (cause) {
    // What it said stays in the log: the answer goes to somebody who has proved nothing yet.
    throw new EscrowError(secrets.kind.notAnswered, 'the signing secrets can not be had', {
      cause,
    });
  }
}
