import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';

/** One POST as it came over the wire. */
export interface ReceivedPost {
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** Monotonic milliseconds. */
  at: number;
}

export interface WebhookEndpoint {
  url: string;
  /** Requests so far, of any path. */
  received: ReceivedPost[];
  /** What the next requests get; 204 by default. */
  answer: (post: ReceivedPost, response: ServerResponse) => void;
  close(): Promise<void>;
}

/** A receiver of webhooks at the wire, scripted per test. */
export async function startWebhookEndpoint(): Promise<WebhookEndpoint> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const post = { headers: request.headers, body: Buffer.concat(chunks), at: performance.now() };
      endpoint.received.push(post);
      endpoint.answer(post, response);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const endpoint: WebhookEndpoint = {
    url: `http://127.0.0.1:${address.port}/hook`,
    received: [],
    answer: status(204),
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return endpoint;
}

/** An answer that is this status and no more. */
export const status =
  (code: number, headers: Record<string, string> = {}) =>
  (_post: ReceivedPost, response: ServerResponse): void => {
    response.writeHead(code, headers);
    response.end();
  };
