import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { CheckAnswer, CheckRequest } from '@escrowmq/protocol';

/** A broker at the wire that only hands out checks and takes their answers. */
export interface FakePullBroker {
  address: string;
  polls: SeenPoll[];
  /** Answers as they came, repeats included. */
  answers(): CheckAnswer[];
  /** Polls that wait for a check right now. */
  waiting(): number;
  /** Makes checks due, with new ids from `first`; returns their ids. */
  offer(count: number): string[];
  /** What happens to the next calls, in order, before it behaves. */
  script: PullScripted[];
  close(): Promise<void>;
}

export interface SeenPoll {
  at: number;
  path: string;
  authorization: string | undefined;
  waitMs: number;
  limit: number;
  answers: CheckAnswer[];
  /** How many checks it got; undefined while it waits. */
  given?: number;
}

export type PullScripted =
  /** The call has its effect, and then the connection is cut. */
  'lose reply' | 'behave' | { status: number; headers?: Record<string, string>; body: string };

/** A UUID of version 7 that says which check it is of. */
const checkId = (number: number) => `0198f3c2-7a10-7cc3-98c4-${String(number).padStart(12, '0')}`;

const checkOf = (id: string): CheckRequest => ({
  id,
  producerGroup: 'accounts',
  businessKeys: [],
  preparedAt: Date.now(),
  attempt: 1,
});

export async function startFakePullBroker(script: PullScripted[] = []): Promise<FakePullBroker> {
  const polls: SeenPoll[] = [];
  const due: CheckRequest[] = [];
  const waiting = new Set<() => void>();
  let offered = 0;

  /** Calls `done` with checks as soon as there is one, and with none when the wait is over. */
  function hand(seen: SeenPoll, done: (checks: CheckRequest[]) => void): () => void {
    const end = () => {
      clearTimeout(timer);
      waiting.delete(look);
      const checks = due.splice(0, seen.limit);
      seen.given = checks.length;
      done(checks);
    };
    const look = () => {
      if (due.length > 0) end();
    };
    const timer = setTimeout(end, seen.waitMs);
    waiting.add(look);
    look();
    return () => {
      clearTimeout(timer);
      waiting.delete(look);
    };
  }

  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString());
      const { authorization } = request.headers;
      const seen: SeenPoll = {
        at: performance.now(),
        path: request.url ?? '',
        authorization,
        answers: [],
        ...body,
      };
      polls.push(seen);
      const scripted = script.shift() ?? 'behave';
      if (typeof scripted === 'object') {
        response.writeHead(scripted.status, scripted.headers).end(scripted.body);
        return;
      }
      const giveUp = hand(seen, (checks) => {
        if (scripted === 'lose reply') response.destroy();
        else response.end(JSON.stringify({ checks }));
      });
      response.on('close', giveUp);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${port}`,
    polls,
    script,
    answers: () => polls.flatMap(({ answers }) => answers),
    waiting: () => waiting.size,
    offer(count) {
      const ids = Array.from({ length: count }, (_, index) => checkId(offered + index));
      offered += count;
      due.push(...ids.map(checkOf));
      for (const look of [...waiting]) look();
      return ids;
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
