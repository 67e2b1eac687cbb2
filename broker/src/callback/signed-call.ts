import type { Dispatcher } from 'undici';
import { request as send } from 'undici';
import type { TraceContext } from '../domain/transaction.js';
import { AddressRefused } from './guarded-agent.js';
import { signatureHeaders } from './signature.js';

/*
 * One signed POST to one endpoint of a producer. It ends in an answer only for HTTP 200 and a JSON
 * body that its reader takes. Everything else is no answer and decides nothing: a 404 from a proxy
 * that lost its way must not roll back anybody's money. The detail of no answer names the cause for
 * the operator and quotes nothing that the other side sent but its status, its content type and the
 * origin that it redirects to.
 */

const DETAIL_CHARS_MAX = 200;

export type NoAnswer = { kind: 'noAnswer'; detail: string };
export type CallResult<Answer> = { kind: 'answer'; answer: Answer } | NoAnswer;

/** What is asked, and how the answer is read. */
export interface Question<Answer> {
  /** The `webhook-id`: without dots, and the same when the same question is put again. */
  messageId: string;
  /** Sent as JSON. */
  request: object;
  /** W3C Trace Context, as it was at prepare. */
  trace: TraceContext;
  /** Of parsed JSON. Its detail of no answer quotes nothing of it. */
  readAnswer(value: unknown): CallResult<Answer>;
}

export interface SignedCall<Answer> {
  url: string;
  question: Question<Answer>;
  signingSecrets: readonly string[];
  /** Reading stops here, whatever was announced. */
  answerBytesMax: number;
  agent: Dispatcher;
  /** Ends the call. While it is still connecting, undici hears it only afterwards. */
  signal: AbortSignal;
  /** Part of what is signed: the receiver compares it with its own clock. */
  at: Date;
}

/**
 * Calls once. Rejects with whatever ended the connection or with the signal's reason;
 * `describeFailure` puts it into words.
 */
export async function callEndpoint<Answer>(call: SignedCall<Answer>): Promise<CallResult<Answer>> {
  const { messageId: id, request, trace, readAnswer } = call.question;
  const body = JSON.stringify(request);
  const response = await send(call.url, {
    method: 'POST',
    dispatcher: call.agent,
    signal: call.signal,
    headers: {
      'user-agent': 'escrowmq-broker',
      'content-type': 'application/json',
      accept: 'application/json',
      // A compressed body could unfold into any size, so none is accepted.
      'accept-encoding': 'identity',
      ...trace,
      ...signatureHeaders({ id, at: call.at, body }, call.signingSecrets),
    },
    body,
  });
  try {
    const refusal = refusalOf(response, call);
    if (refusal !== undefined) return noAnswer(refusal);
    const bytes = await readAtMost(response.body, call.answerBytesMax);
    if (bytes === undefined) return noAnswer(`answer larger than ${call.answerBytesMax} bytes`);
    if (bytes.length === 0) return noAnswer('empty answer');
    const json = parseJson(bytes);
    return json === undefined ? noAnswer('answer is not JSON') : readAnswer(json.value);
  } finally {
    discard(response.body);
  }
}

/** Or the service's way to its handler asks for a login of its own. */
const REFUSED =
  'HTTP 401: the endpoint refused the signature; is the signing secret of its handler the one of the producer group, as registerGroup set or answered it?';

/** What status and headers alone say against the answer. */
function refusalOf(
  response: Dispatcher.ResponseData,
  { url, answerBytesMax }: Pick<SignedCall<unknown>, 'url' | 'answerBytesMax'>,
): string | undefined {
  const { statusCode: status, headers } = response;
  if (status >= 300 && status < 400) {
    const target = originOf(single(headers.location), url);
    return `HTTP ${status}: redirect to ${target}, which is not followed`;
  }
  if (status === 401) return REFUSED;
  if (status !== 200) return `HTTP ${status}`;
  const encoding = single(headers['content-encoding']) ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') return `compressed answer (${brief(encoding)})`;
  const type = single(headers['content-type'])?.split(';')[0]?.trim().toLowerCase() ?? 'none';
  if (type !== 'application/json') {
    return `content type ${brief(type)} instead of application/json`;
  }
  if (Number(single(headers['content-length'])) > answerBytesMax) {
    return `answer larger than ${answerBytesMax} bytes`;
  }
  return undefined;
}

function parseJson(bytes: Buffer): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) };
  } catch {
    // The parser's message quotes the text, which may be anything; that it is not JSON says enough.
    return undefined;
  }
}

/** The whole body, or undefined when there is more of it than that. */
async function readAtMost(
  body: Dispatcher.ResponseData['body'],
  bytesMax: number,
): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bytesMax) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Ends a body that was not read to its end, and its connection with it; else does nothing. */
function discard(body: Dispatcher.ResponseData['body']): void {
  // Destroying an unread body makes it report that it was aborted, which is what was asked for.
  body.on('error', () => undefined);
  body.destroy();
}

/**
 * The cause of a failed call in words, without anything that the URL or the other side said;
 * undefined for an error that no network makes.
 */
export function describeFailure(error: unknown): string | undefined {
  if (error instanceof AddressRefused) return brief(error.message);
  if (typeof error !== 'object' || error === null) return undefined;
  // It has no code for a text that does not even begin like HTTP.
  if ('name' in error && error.name === 'HTTPParserError')
    return 'the endpoint does not speak HTTP';
  if (!('code' in error)) return undefined;
  return typeof error.code === 'string' ? `${hint(error.code)}${error.code}` : undefined;
}

function hint(code: string): string {
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'host name not resolved: ';
  if (/CERT|TLS|SSL|SIGNATURE/.test(code)) return 'TLS failed: ';
  if (code === 'UND_ERR_SOCKET' || code === 'ECONNRESET') return 'connection lost: ';
  return /^(UND_ERR_CONNECT|E[A-Z]+$)/.test(code) ? 'no connection: ' : 'call failed: ';
}

export function noAnswer(detail: string): NoAnswer {
  return { kind: 'noAnswer', detail };
}

function single(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

/** Path and query may hold secrets; the origin is enough to find the proxy that redirects. */
function originOf(location: string | undefined, base: string): string {
  if (location === undefined || !URL.canParse(location, base)) return 'nowhere';
  return brief(new URL(location, base).origin);
}

/** A word of the other side's, made fit for a line of a log. */
function brief(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, DETAIL_CHARS_MAX);
}
