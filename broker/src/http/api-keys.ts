import { createHash, timingSafeEqual } from 'node:crypto';
import { EscrowError } from '@escrowmq/protocol';

/*
 * Who calls, and what they may do. A producer's key stands for one producer group and acts and
 * reads only within it. An operator's key reads everything, registers groups and resolves, but does
 * not play the producer: an operator's decision goes on record with a name and a reason.
 */

type Role = 'producer' | 'operator';

export interface ApiKey {
  /** For people: who holds it. */
  name: string;
  role: 'operator' | { producer: string };
  /** SHA-256 of the key; the key itself is kept nowhere. */
  sha256: Buffer;
}

export type Caller =
  /** No keys are configured: the broker listens on loopback only and trusts whoever reaches it. */
  | { role: 'anyone' }
  | { role: 'operator'; name: string }
  | { role: 'producer'; name: string; group: string };

/** A route's rule: open to all, or to the keys of these roles. */
export type Access = 'open' | readonly Role[];

const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;

/**
 * The caller behind an `Authorization` header.
 *
 * Every key is compared, in constant time and to the end, so that the time taken tells neither
 * how much of a key was right nor which one it was. One round of SHA-256 is enough for keys that
 * are random; there is no password to slow down for.
 *
 * @throws EscrowError `UNAUTHENTICATED`
 */
export function identify(authorization: string | undefined, keys: readonly ApiKey[]): Caller {
  if (keys.length === 0) return { role: 'anyone' };
  const token = BEARER.exec(authorization ?? '')?.[1];
  if (token === undefined) {
    throw new EscrowError(
      'UNAUTHENTICATED',
      'an API key is needed: send it as "Authorization: Bearer <key>"',
    );
  }
  const sha256 = createHash('sha256').update(token).digest();
  let found: ApiKey | undefined;
  for (const key of keys) if (timingSafeEqual(key.sha256, sha256)) found = key;
  if (found === undefined) {
    throw new EscrowError('UNAUTHENTICATED', 'this API key is not one that the broker knows');
  }
  return found.role === 'operator'
    ? { role: 'operator', name: found.name }
    : { role: 'producer', name: found.name, group: found.role.producer };
}

/** @throws EscrowError `FORBIDDEN` when the route is not for the caller's role. */
export function requireRole(caller: Caller, access: Access, route: string): void {
  if (access === 'open' || caller.role === 'anyone' || access.includes(caller.role)) return;
  const hint =
    caller.role === 'operator'
      ? '; an operator decides with POST /v1/transactions/{id}/resolve, by name and with a reason'
      : '';
  throw new EscrowError(
    'FORBIDDEN',
    `${route} is for ${access.join(' and ')} keys; ${caller.name} is a key of role ${caller.role}${hint}`,
  );
}

/** The name of the caller's key; `undefined` without keys. */
export const keyNameOf = (caller: Caller): string | undefined =>
  caller.role === 'anyone' ? undefined : caller.name;

/** The one group that the caller may see and act for; `undefined` for all. */
export const groupOf = (caller: Caller): string | undefined =>
  caller.role === 'producer' ? caller.group : undefined;

/** @throws EscrowError `FORBIDDEN` when the request names another group than the caller's own. */
export function requireGroup(caller: Caller, group: string): void {
  if (caller.role !== 'producer' || caller.group === group) return;
  throw new EscrowError(
    'FORBIDDEN',
    `${caller.name} is a key of producer group ${caller.group} and may not act for ${group}`,
  );
}
