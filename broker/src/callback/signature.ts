import { createHmac, randomBytes } from 'node:crypto';

/** Standard Webhooks asks for 24 to 64 bytes; 32 is the width of the HMAC-SHA256 behind it. */
const SECRET_BYTES = 32;

/** A new signing secret: `whsec_` and the base64 of 32 random bytes. */
export function newSigningSecret(): string {
  return `whsec_${randomBytes(SECRET_BYTES).toString('base64')}`;
}

/** What is signed: the exact bytes of the body under one message id at one time. */
export interface SignedMessage {
  /** Without dots: the signed text separates its parts with them. */
  id: string;
  /** The receiver refuses it when it is more than five minutes off its own clock. */
  at: Date;
  body: string | Buffer;
}

/**
 * The Standard Webhooks headers, with one signature for each secret, so that a receiver that
 * knows the old secret or the new one accepts it while the secrets are being rotated.
 *
 * @throws when a secret is not base64.
 */
export function signatureHeaders(message: SignedMessage, secrets: readonly string[]) {
  const { id, at } = message;
  return {
    'webhook-id': id,
    'webhook-timestamp': String(secondsOf(at)),
    'webhook-signature': secrets.map((secret) => signatureOf(message, secret)).join(' '),
  };
}

/**
 * Computed here, because the library of Standard Webhooks signs text alone: of bytes that are no
 * UTF-8 it would sign others.
 */
function signatureOf({ id, at, body }: SignedMessage, secret: string): string {
  const key = /^whsec_([A-Za-z0-9+/]+=*)$/.exec(secret)?.[1];
  if (key === undefined) throw new Error('a signing secret is not whsec_ and base64');
  const hmac = createHmac('sha256', Buffer.from(key, 'base64'));
  hmac.update(`${id}.${secondsOf(at)}.`).update(body);
  return `v1,${hmac.digest('base64')}`;
}

const secondsOf = (at: Date): number => Math.floor(at.getTime() / 1000);
