import { randomBytes } from 'node:crypto';
import { Webhook } from 'standardwebhooks';

/** Standard Webhooks asks for 24 to 64 bytes; 32 is the width of the HMAC-SHA256 behind it. */
const SECRET_BYTES = 32;

/** A new signing secret for a producer group: `whsec_` and the base64 of 32 random bytes. */
export function newSigningSecret(): string {
  return `whsec_${randomBytes(SECRET_BYTES).toString('base64')}`;
}

/** What is signed: the exact bytes of the body under one message id at one time. */
export interface SignedMessage {
  /** Without dots: the signed text separates its parts with them. */
  id: string;
  /** The receiver refuses it when it is more than five minutes off its own clock. */
  at: Date;
  body: string;
}

/**
 * The Standard Webhooks headers, with one signature for each secret, so that a receiver that
 * knows the old secret or the new one accepts it while the secrets are being rotated.
 *
 * @throws when a secret is not base64.
 */
export function signatureHeaders(message: SignedMessage, secrets: readonly string[]) {
  const { id, at, body } = message;
  return {
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
    'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(' '),
  };
}
