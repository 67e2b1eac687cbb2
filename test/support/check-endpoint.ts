import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { CheckRequest } from '@escrowmq/protocol';

export interface CheckEndpoint {
  url: string;
  /** Checks received so far. */
  asked: CheckRequest[];
  /** What the next checks get; by default the answer "unknown". */
  answer: (check: CheckRequest, response: ServerResponse, request: IncomingMessage) => void;
  close(): Promise<void>;
}

/** A producer's check endpoint at the wire, scripted per test. */
export async function startCheckEndpoint(): Promise<CheckEndpoint> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const check = JSON.parse(Buffer.concat(chunks).toString()) as CheckRequest;
      endpoint.asked.push(check);
      endpoint.answer(check, response, request);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const endpoint: CheckEndpoint = {
    url: `http://127.0.0.1:${address.port}/check`,
    asked: [],
    answer: decide('unknown'),
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return endpoint;
}

/** The answer that a well-behaved producer gives. */
export const decide =
  (decision: 'commit' | 'rollback' | 'unknown') =>
  (check: CheckRequest, response: ServerResponse): void => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ id: check.id, decision }));
  };
