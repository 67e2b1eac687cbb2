import { EscrowError } from '@escrowmq/protocol';
import {
  bodyTooLarge,
  CALLBACK_BODY_BYTES_MAX,
  type CallbackKind,
  CHECK,
} from './callback-handler.js';
import type { CheckHandler } from './check-handler.js';
import {
  answerMounted,
  type CallbackMount,
  type CheckMountOptions,
  parseMount,
} from './check-mount.js';

/**
 * Serves a check handler wherever a route takes a `Request` and returns a `Response`: route
 * handlers of Next, Hono, Bun, Deno, Workers.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION
 * @example
 * // Next: app/escrow-check/route.ts
 * export const POST = fetchCheckHandler(check);
 * // Hono
 * app.post('/escrow-check', (context) => handleCheck(context.req.raw));
 */
export function fetchCheckHandler(
  check: CheckHandler,
  options: CheckMountOptions = {},
): (request: Request) => Promise<Response> {
  return fetchListener(parseMount(CHECK, check, options, { where: 'fetchCheckHandler' }));
}

export function fetchListener(mount: CallbackMount): (request: Request) => Promise<Response> {
  return async (request) => {
    const body = bodyOf(request, mount.kind);
    try {
      const { answer } = await answerMounted(mount, {
        method: request.method,
        headers: Object.fromEntries(request.headers),
        readRawBody: body.read,
      });
      return new Response(answer.body, { status: answer.status, headers: answer.headers });
    } finally {
      body.giveUp();
    }
  };
}

/** The body as a stream that is read at most once and can be left at any point. */
function bodyOf(request: Request, kind: CallbackKind) {
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  return {
    /** @throws {EscrowError} `notAnswered`, BODY_TOO_LARGE */
    async read(): Promise<Uint8Array> {
      if (request.bodyUsed || request.body?.locked === true) {
        throw new EscrowError(
          kind.notAnswered,
          `the body of the ${kind.name} was read before, and the signature covers its raw bytes: give the ${kind.name} handler the request unread, or a clone of it`,
        );
      }
      reader = request.body?.getReader();
      return reader === undefined ? new Uint8Array() : readAll(reader, kind);
    },
    /** Ends what nobody waits for any more; nothing when the body was read to its end. */
    giveUp(): void {
      // A connection that is lost already can't be given up, and nobody waits for either.
      reader?.cancel().catch(() => undefined);
    },
  };
}

async function readAll(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  kind: CallbackKind,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(CALLBACK_BODY_BYTES_MAX);
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return bytes.subarray(0, length);
    if (length + value.length > CALLBACK_BODY_BYTES_MAX) throw bodyTooLarge(kind);
    bytes.set(value, length);
    length += value.length;
  }
}
