import http from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  BatchOperation,
  BatchRequest,
  type BatchResult,
  CLIENT_HEADER,
  EscrowError,
  forOlderCaller,
  isEscrowError,
  namesVersion,
  PROBLEM_CONTENT_TYPE,
  ProducerGroupRequest,
  parse,
  parseOuter,
  type TransactionAnswer,
  toProblem,
} from '@escrowmq/protocol';
import { uuidv7 } from 'uuidv7';
import { type Deferred, deferred } from './deferred.js';

/*
 * A broker that keeps its transactions in memory, says what the real one says, and may be told to
 * lose or delay what passes. It forwards nothing and checks nothing by itself: when a check comes is
 * the scenario's business.
 */

/** What happens to one operation on its way. A lost one ends in a cut connection. */
export interface Fault {
  /** The request is lost before it had its effect, or its answer after. @default neither is lost */
  lose?: 'request' | 'answer';
  /** Holds the operation before it has its effect, or its answer after. @default nothing is held */
  before?: {
    /** The operation waits for it. @default it does not wait */ effect?: Promise<void> /** Its answer waits for it. @default it does not wait */;
    answer?: Promise<void>;
  };
}

/** What a producer asks of the broker. */
export type Op = 'prepare' | 'commit' | 'rollback';

/** A transaction as the broker saw it. */
export interface KitTransaction {
  /** Its id, a UUID of version 7. */
  readonly id: string;
  /** False while every prepare of it got lost. */
  isStored: boolean;
  /** What the producer sent, lost ones and repeats included. */
  readonly verdicts: ('commit' | 'rollback')[];
  /** When the first prepare came, in UTC milliseconds. */
  readonly preparedAt: number;
  /** As the prepare gave them. */
  readonly businessKeys: string[];
  /** As the prepare gave it; `undefined` where it gave none. */
  readonly checkContext: string | undefined;
  /** How many messages wait for the data that comes with the commit. */
  readonly messagesOpen: number;
  /** The decision on record; absent before there is one. */
  decision?: TransactionAnswer['decision'];
}

/** What one attempt of the producer sent, and what happens to it. */
export interface Episode {
  /** In the order in which they came. */
  readonly transactions: readonly KitTransaction[];
  /** Set by the scenario. */
  fault(op: Op): Fault;
  /** Resolves when the first verdict of this kind has come, or when the first prepare had its effect or got lost. */
  arrival(op: Op): Promise<void>;
}

export interface KitBroker {
  address: string;
  /** Transactions prepared from now on belong to this episode. */
  begin(): Episode;
  /** Records what a check answered, as the real broker does; a decision that stands is kept. */
  decide(transaction: KitTransaction, decision: 'commit' | 'rollback'): void;
  close(): Promise<void>;
}

/** An operation on a transaction that is decided later. */
type Owned = Extract<BatchOperation, { op: Op }>;

interface OpenEpisode extends Episode {
  transactions: KitTransaction[];
  arrivals: Record<Op, Deferred>;
}

interface Answer {
  status: number;
  body: unknown;
}

export async function startKitBroker(group: {
  producerGroup: string;
  signingSecret: string;
}): Promise<KitBroker> {
  const known = new Map<string, { transaction: KitTransaction; episode: OpenEpisode }>();
  let current = openEpisode();

  /** Finds the transaction of an operation; a prepare of a new id makes it. */
  function find(operation: Owned) {
    const found = known.get(operation.id ?? '');
    if (found !== undefined) return found;
    if (operation.op !== 'prepare') {
      throw new EscrowError('TRANSACTION_NOT_FOUND', `no transaction ${operation.id} is known`);
    }
    if (operation.producerGroup !== group.producerGroup) {
      throw new EscrowError(
        'UNKNOWN_PRODUCER_GROUP',
        `the fault kit was made for the group ${group.producerGroup}, not ${operation.producerGroup}`,
      );
    }
    const transaction: KitTransaction = {
      id: operation.id ?? uuidv7(),
      isStored: false,
      verdicts: [],
      preparedAt: Date.now(),
      businessKeys: operation.businessKeys,
      checkContext: operation.checkContext,
      messagesOpen: operation.messages.filter(({ dataAtCommit }) => dataAtCommit === true).length,
    };
    const made = { transaction, episode: current };
    current.transactions.push(transaction);
    known.set(transaction.id, made);
    return made;
  }

  async function play(operation: Owned): Promise<BatchResult | 'lost'> {
    const { transaction, episode } = find(operation);
    if (operation.op !== 'prepare') {
      transaction.verdicts.push(operation.op);
      episode.arrivals[operation.op].resolve();
    }
    const { lose, before } = episode.fault(operation.op);
    await before?.effect;
    const status = lose === 'request' ? 0 : apply(transaction, operation);
    episode.arrivals[operation.op].resolve();
    await before?.answer;
    return lose === undefined ? { status, answer: answerOf(transaction) } : 'lost';
  }

  async function run(value: unknown): Promise<BatchResult | 'lost'> {
    try {
      const operation = parse(BatchOperation, value, 'the operation');
      return operation.op === 'send' ? sent(operation.id ?? uuidv7()) : await play(operation);
    } catch (error) {
      if (!isEscrowError(error)) throw error;
      return { status: error.status, problem: toProblem(error) };
    }
  }

  async function batch(body: unknown): Promise<Answer | 'lost'> {
    const { operations } = parseOuter(BatchRequest, body, 'the batch');
    const results: BatchResult[] = [];
    for (const operation of operations) {
      const result = await run(operation);
      if (result === 'lost') return 'lost';
      results.push(result);
    }
    return { status: 200, body: { results } };
  }

  async function single(operation: object): Promise<Answer | 'lost'> {
    const result = await run(operation);
    if (result === 'lost') return 'lost';
    return { status: result.status, body: result.answer ?? result.problem };
  }

  async function route(method: string, path: string, body: unknown): Promise<Answer | 'lost'> {
    const given = typeof body === 'object' && body !== null ? body : {};
    const verdict = /^\/v1\/transactions\/([^/]+)\/(commit|rollback)$/.exec(path);
    if (method === 'POST' && path === '/v1/batch') return batch(body);
    if (method === 'POST' && path === '/v1/transactions')
      return single({ ...given, op: 'prepare' });
    if (method === 'POST' && path === '/v1/messages') return single({ ...given, op: 'send' });
    if (method === 'POST' && verdict !== null) {
      return single({ ...given, id: verdict[1], op: verdict[2] });
    }
    if (method === 'PUT' && path === `/v1/producer-groups/${group.producerGroup}`) {
      const request = parse(ProducerGroupRequest, body, 'the producer group');
      const { checkUrls, compensationUrls, checkPolicy } = request;
      return { status: 200, body: { ...group, checkUrls, compensationUrls, checkPolicy } };
    }
    throw new EscrowError(
      'ROUTE_NOT_FOUND',
      `the fault kit takes prepare, commit, rollback, batch, send and the registration of ${group.producerGroup}, not ${method} ${path}`,
    );
  }

  const server = http.createServer((request, response) => {
    const write = ({ status, body }: Answer) =>
      writeAnswer(response, {
        status,
        body: namesVersion(request.headers[CLIENT_HEADER]) ? body : forOlderCaller(body),
      });
    answer(request, route).then(
      (answered) => (answered === 'lost' ? response.destroy() : write(answered)),
      (error: unknown) => {
        const problem = isEscrowError(error)
          ? error
          : new EscrowError('INTERNAL_ERROR', `the fault kit failed: ${String(error)}`);
        write({ status: problem.status, body: toProblem(problem) });
      },
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;

  return {
    address: `http://127.0.0.1:${port}`,
    begin() {
      current = openEpisode();
      return current;
    },
    decide(transaction, decision) {
      transaction.decision ??= { decision, at: Date.now(), by: 'check' };
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function openEpisode(): OpenEpisode {
  const arrivals = { prepare: deferred(), commit: deferred(), rollback: deferred() };
  return {
    transactions: [],
    arrivals,
    fault: () => ({}),
    arrival: (op) => arrivals[op].promise,
  };
}

/** @returns the HTTP status @throws {EscrowError} like the broker */
function apply(transaction: KitTransaction, operation: Owned): number {
  const { id, decision } = transaction;
  if (operation.op === 'prepare') {
    const status = transaction.isStored ? 200 : 201;
    transaction.isStored = true;
    return status;
  }
  if (!transaction.isStored) {
    throw new EscrowError('TRANSACTION_NOT_FOUND', `transaction ${id} was never prepared`);
  }
  if (decision !== undefined && decision.decision !== operation.op) {
    throw new EscrowError(
      'STATE_CONFLICT',
      `transaction ${id} has the decision ${decision.decision} by ${decision.by}; a ${operation.op} contradicts it`,
      { details: { decision } },
    );
  }
  const supplied = operation.op === 'commit' ? (operation.messageData ?? []) : undefined;
  if (supplied !== undefined && supplied.length < transaction.messagesOpen) {
    throw new EscrowError('MESSAGE_DATA_MISSING', `the commit of ${id} lacks data`);
  }
  transaction.decision ??= { decision: operation.op, at: Date.now(), by: 'producer' };
  return 200;
}

const STATES = { commit: 'committed', rollback: 'rolledBack' } as const;

function answerOf({ id, decision }: KitTransaction): TransactionAnswer {
  return decision === undefined
    ? { id, state: 'prepared' }
    : { id, state: STATES[decision.decision], decision };
}

const sent = (id: string): BatchResult => ({
  status: 201,
  answer: {
    id,
    state: 'committed',
    decision: { decision: 'commit', at: Date.now(), by: 'producer' },
  },
});

async function answer(
  request: http.IncomingMessage,
  route: (method: string, path: string, body: unknown) => Promise<Answer | 'lost'>,
): Promise<Answer | 'lost'> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  return route(request.method ?? '', request.url ?? '', text === '' ? undefined : json(text));
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new EscrowError('INVALID_JSON', 'the body is not JSON', { cause });
  }
}

function writeAnswer(response: http.ServerResponse, { status, body }: Answer): void {
  const contentType = status < 300 ? 'application/json' : PROBLEM_CONTENT_TYPE;
  response.writeHead(status, { 'content-type': contentType }).end(JSON.stringify(body));
}
