import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { EscrowError, type TransactionAnswer, toProblem } from '@escrowmq/protocol';

/**
 * A broker at the wire: it keeps transactions in memory, just well enough for a client, and plays
 * a script of faults, one entry per request, before it behaves.
 */
export interface FakeBroker {
  address: string;
  requests: SeenRequest[];
  transactions: Map<string, TransactionAnswer>;
  /** What happens to the next requests, in order. */
  script: Scripted[];
  /** Replaced by a test that wants an operation refused. */
  refuse(operation: SeenOperation): EscrowError | undefined;
  /** Replaced by a test that wants whole requests refused. */
  refuseBody(body: string): EscrowError | undefined;
  /** Larger bodies are refused by a proxy in front of it. @default none is */
  bodyBytesMax: number;
  /** Operations of all batches, in the order they came. */
  operations(): SeenOperation[];
  /** Stops listening and cuts every connection; the address is dead afterwards. */
  close(): Promise<void>;
}

interface SeenOperation {
  op: string;
  id: string;
}

interface SeenRequest {
  method: string;
  path: string;
  headers: http.IncomingHttpHeaders;
  body: string;
}

export type Scripted =
  /** The connection is cut before the request had any effect. */
  | 'lose request'
  /** The request has its effect, and then the connection is cut. */
  | 'lose reply'
  /** No answer, ever. */
  | 'hang'
  | 'behave'
  /** The request has its effect when the promise resolves. */
  | { after: Promise<void> }
  | { status: number; headers?: Record<string, string>; body: string };

/** @param port of one that was closed, to take its place @default a free one */
export async function startFakeBroker(script: Scripted[] = [], port = 0): Promise<FakeBroker> {
  const requests: SeenRequest[] = [];
  const transactions = new Map<string, TransactionAnswer>();
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const seen = {
        method: request.method ?? '',
        path: request.url ?? '',
        headers: request.headers,
        body: Buffer.concat(chunks).toString(),
      };
      requests.push(seen);
      void play(script.shift() ?? 'behave', () => behave(broker, seen), response);
    });
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const address = server.address() as AddressInfo;
  const broker: FakeBroker = {
    address: `http://127.0.0.1:${address.port}`,
    requests,
    transactions,
    script,
    refuse: () => undefined,
    refuseBody: () => undefined,
    bodyBytesMax: Number.POSITIVE_INFINITY,
    operations: () =>
      requests
        .filter(({ path }) => path === '/v1/batch')
        .flatMap(({ body }) => JSON.parse(body).operations),
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return broker;
}

interface Answer {
  status: number;
  headers?: Record<string, string>;
  body: string;
}

async function play(scripted: Scripted, act: () => Answer, response: http.ServerResponse) {
  if (scripted === 'hang') return;
  if (scripted === 'lose request') {
    response.destroy();
    return;
  }
  if (typeof scripted === 'object' && 'after' in scripted) await scripted.after;
  const answer = typeof scripted === 'object' && 'status' in scripted ? scripted : act();
  if (scripted === 'lose reply') {
    response.destroy();
    return;
  }
  response.writeHead(answer.status, answer.headers).end(answer.body);
}

function behave(broker: FakeBroker, request: SeenRequest): Answer {
  if (request.path !== '/v1/batch') return { status: 404, body: 'not in this fake' };
  if (Buffer.byteLength(request.body) > broker.bodyBytesMax) {
    return { status: 413, body: '<h1>413 Request Entity Too Large</h1>' };
  }
  const refused = broker.refuseBody(request.body);
  if (refused !== undefined) return problemAnswer(refused);
  const { transactions } = broker;
  const { operations } = JSON.parse(request.body) as { operations: SeenOperation[] };
  const results = operations.map(({ op, id }) => {
    try {
      const error = broker.refuse({ op, id });
      if (error !== undefined) throw error;
      return { status: 200, answer: apply(transactions, op, id) };
    } catch (error) {
      if (!(error instanceof EscrowError)) throw error;
      return { status: error.status, problem: toProblem(error) };
    }
  });
  return { status: 200, body: JSON.stringify({ results }) };
}

function apply(
  transactions: Map<string, TransactionAnswer>,
  op: string,
  id: string,
): TransactionAnswer {
  const current = transactions.get(id);
  if (op === 'prepare') return put(transactions, current ?? { id, state: 'prepared' });
  if (op === 'send') return put(transactions, current ?? decided(id, 'commit'));
  if (op !== 'commit' && op !== 'rollback') throw new EscrowError('INVALID_REQUEST', op);
  if (current === undefined) throw new EscrowError('TRANSACTION_NOT_FOUND', `no ${id}`);
  if (current.decision === undefined) return put(transactions, decided(id, op));
  if (current.decision.decision === op) return current;
  throw new EscrowError('STATE_CONFLICT', `${id} is ${current.state}`, {
    details: { decision: current.decision },
  });
}

function put(transactions: Map<string, TransactionAnswer>, answer: TransactionAnswer) {
  transactions.set(answer.id, answer);
  return answer;
}

export function decided(id: string, decision: 'commit' | 'rollback'): TransactionAnswer {
  const state = decision === 'commit' ? 'committed' : 'rolledBack';
  return { id, state, decision: { decision, at: 0, by: 'producer' } };
}

export function problemAnswer(error: EscrowError, headers: Record<string, string> = {}) {
  return {
    status: error.status,
    headers: { 'content-type': 'application/problem+json', ...headers },
    body: JSON.stringify(toProblem(error)),
  };
}
