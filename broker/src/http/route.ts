import type { IncomingHttpHeaders } from 'node:http';
import type { ErrorCode } from '@escrowmq/protocol';
import type { z } from 'zod';
import type { Access, Caller } from './api-keys.js';

/** What a route gets to see of a request; nothing in it is checked yet but the caller. */
export interface Call {
  params: Readonly<Record<string, string>>;
  query: unknown;
  /** Parsed JSON; `undefined` when there was no body. */
  body: unknown;
  headers: IncomingHttpHeaders;
  caller: Caller;
  /** Aborts when the caller hangs up or the broker shuts down. For answers that wait. */
  untilGone(): AbortSignal;
}

interface Answer {
  /** @default 200 */
  status?: number;
  /** Sent as JSON, or as it is when `contentType` is given. */
  body: unknown;
  contentType?: string;
}

/** An answer in the API description; a string stands for a media type that is not JSON. */
interface AnswerDoc {
  description: string;
  schema: z.ZodType | string;
}

/**
 * One route as data: who may call it, what the API description says about it, and the function
 * that translates. Registration and tests read the same list, so none can be forgotten.
 */
export interface Route {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** With parameters as Fastify writes them: `/v1/transactions/:id`. */
  url: `/${string}`;
  access: Access;
  /** @default the limit of one transaction */
  bodyBytesMax?: number;
  operationId: string;
  summary: string;
  description: string;
  params?: z.ZodType;
  query?: z.ZodType;
  body?: z.ZodType;
  /** @default a route with a body needs it */
  bodyMayBeAbsent?: boolean;
  /** Takes the W3C trace headers and keeps them with the messages. */
  keepsTrace?: boolean;
  answers: Readonly<Record<number, AnswerDoc>>;
  /** Codes of its own; those that any route can answer are added by the description. */
  problems: readonly ErrorCode[];
  handle(call: Call): Promise<Answer>;
}
