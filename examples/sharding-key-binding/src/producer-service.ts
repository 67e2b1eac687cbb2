import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isEscrowError, type Producer } from '@escrowmq/producer';
import type { User } from './indexes.js';
import { EmailTakenError, registerUser } from './registration.js';
import type { Shards } from './shards.js';

export interface ProducerServiceOptions {
  producer: Producer;
  shards: Shards;
  /** Answers the broker's checks. */
  check: RequestListener;
  /** @default 0: any free port */
  port?: number;
}

export interface ProducerService {
  /** Such as `http://127.0.0.1:8080`. */
  url: string;
  /** Takes no more requests and waits for those under way. */
  close(): Promise<void>;
}

export const CHECK_PATH = '/escrow-check';

/**
 * The answer to `POST /users`: 201 with the transaction's id, 202 when its outcome is not known yet,
 * or a refusal with a `code`.
 */
export interface RegistrationAnswer {
  /** Of the transaction that registered the user, or that found the e-mail taken. */
  transactionId?: string;
  /** Absent when the user is registered. */
  code?: string;
  message?: string;
}

/**
 * The service in front of the user shards: `POST /users` registers a user, and the broker asks at
 * `CHECK_PATH` what became of a transaction.
 */
export async function startProducerService(
  options: ProducerServiceOptions,
): Promise<ProducerService> {
  const { producer, shards, check } = options;
  const server = createServer((request, response) => {
    if (request.url === CHECK_PATH) {
      check(request, response);
      return;
    }
    void answer({ producer, shards }, request).then(({ status, body }) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    });
  });
  server.listen(options.port ?? 0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      server.close();
      server.closeIdleConnections();
      await once(server, 'close');
    },
  };
}

interface Answer {
  status: number;
  body: RegistrationAnswer;
}

async function answer(
  deps: { producer: Producer; shards: Shards },
  request: IncomingMessage,
): Promise<Answer> {
  if (request.method !== 'POST' || request.url !== '/users') {
    return { status: 404, body: { code: 'ROUTE_NOT_FOUND', message: 'POST /users registers' } };
  }
  try {
    const user = parseUser(await readBody(request));
    if (user === undefined) {
      const message = 'needs userId, phone, email and identityCard';
      return { status: 400, body: { code: 'INVALID_USER', message } };
    }
    const { id, outcome } = await registerUser(deps, user);
    // Not known yet: the broker will find out by its check. GET /v1/transactions/{id} tells.
    return { status: outcome === 'committed' ? 201 : 202, body: { transactionId: id } };
  } catch (error) {
    return refusal(error);
  }
}

function refusal(error: unknown): Answer {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof EmailTakenError) {
    const { transactionId } = error;
    return { status: 409, body: { code: 'EMAIL_TAKEN', message, transactionId } };
  }
  if (isEscrowError(error)) return { status: 503, body: { code: error.code, message } };
  return { status: 500, body: { code: 'INTERNAL', message } };
}

/** A user is a few hundred bytes. */
const BODY_BYTES_MAX = 4_096;

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`a body has at most ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}

function parseUser(value: unknown): User | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { userId, phone, email, identityCard } = value as Record<string, unknown>;
  if (!Number.isSafeInteger(userId) || Number(userId) < 0) return undefined;
  if (typeof phone !== 'string' || typeof email !== 'string') return undefined;
  if (typeof identityCard !== 'string') return undefined;
  // One spelling each, or the unique keys and the look-ups would not mean the same e-mail.
  return { userId: Number(userId), phone, email: email.toLowerCase(), identityCard };
}
