import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { CompensationRequest } from '@escrowmq/protocol';

export interface CompensationEndpoint {
  url: string;
  /** Calls received so far. */
  asked: CompensationRequest[];
  /** What the next calls get; by default an acknowledgement. */
  answer: (
    request: CompensationRequest,
    response: ServerResponse,
    incoming: IncomingMessage,
  ) => void;
  close(): Promise<void>;
}

/** A producer's compensation endpoint at the wire, scripted per test. */
export async function startCompensationEndpoint(): Promise<CompensationEndpoint> {
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const request = JSON.parse(Buffer.concat(chunks).toString()) as CompensationRequest;
      endpoint.asked.push(request);
      endpoint.answer(request, response, incoming);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const endpoint: CompensationEndpoint = {
    url: `http://127.0.0.1:${address.port}/compensate`,
    asked: [],
    answer: acknowledge,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return endpoint;
}

/** The answer that a well-behaved producer gives. */
export function acknowledge({ id }: CompensationRequest, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ id, acknowledged: true }));
}
